"""A start that fails leaves nothing behind, and a part that hangs keeps nobody from stopping."""

from __future__ import annotations

import asyncio
import socket
import threading
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from polos_service import server as server_module
from polos_service.api.grpc import server as grpc_module
from polos_service.api.grpc.server import GrpcServer
from polos_service.runs.executor import Executor
from polos_service.server import Service
from polos_service.store.sqlite import SqliteStore
from tests.support.service import scripted, serving, settings_for, until

AGENT = scripted("fine")


def threads() -> set[threading.Thread]:
    """Return the threads of the service that are alive; those of libraries stay."""
    return {one for one in threading.enumerate() if one.name in {"polos-watchdog", "polos-commit"}}


def free_port() -> int:
    """Return a port that is free now."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        return int(free.getsockname()[1])


async def fails(*_: object, **__: object) -> Any:
    """Fail, as a part that does not start."""
    raise RuntimeError("planted")


def fails_at_once(*_: object, **__: object) -> Any:
    """Fail, as a part that is not made."""
    raise RuntimeError("planted")


async def hangs(*_: object) -> Any:
    """Never end."""
    await asyncio.Event().wait()


@pytest.mark.parametrize(
    ("owner", "part", "failure"),
    [
        (grpc_module, "generic_handler", fails_at_once),
        (GrpcServer, "listen", fails_at_once),
        (GrpcServer, "tell_health", fails),
        (SqliteStore, "waiting", fails),
        (Executor, "start", fails_at_once),
        (Service, "_keep", fails_at_once),
        (server_module, "Watchdog", fails_at_once),
    ],
)
async def test_a_start_that_fails_leaves_no_task_thread_port_or_lock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, owner: Any, part: str, failure: Any
) -> None:
    before = asyncio.all_tasks()
    settings = settings_for(tmp_path, listen=f"127.0.0.1:{free_port()}", retention=60)
    monkeypatch.setattr(owner, part, failure)
    with pytest.raises(RuntimeError, match="planted"):
        await Service.start(settings, [AGENT])
    monkeypatch.undo()
    await until(lambda: asyncio.all_tasks() == before, "its tasks have ended")
    await until(lambda: not threads(), "its threads have ended")
    async with serving(tmp_path, AGENT, listen=settings.listen) as served:
        assert (await AGENT.run(served.client, "Go.")).result == "fine"


@pytest.mark.parametrize(
    "hung",
    [
        ("_executor", "stop", "runs"),
        ("_providers", "close", "providers"),
        ("_server", "stop", "calls"),
        ("_server", "announce_stop", "health"),
        ("_store", "close", "store"),
    ],
    ids=lambda hung: hung[-1],
)
@pytest.mark.parametrize("how", [hangs, fails])
async def test_a_part_that_does_not_stop_is_named_and_left(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    hung: tuple[str, str, str],
    how: Any,
) -> None:
    owner, method, part = hung
    monkeypatch.setattr(server_module, "PART_SECONDS", 0.5)
    service = await Service.start(settings_for(tmp_path), [AGENT])
    broken = getattr(service, owner)
    good = getattr(broken, method)
    with capture_logs() as logs:
        substitute = Substitute(broken, method, how)
        setattr(service, owner, substitute)
        await service.stop(0)
    event = "part_does_not_stop" if how is hangs else "part_failed_to_stop"
    assert (event, part) in [(one["event"], one.get("part")) for one in logs]
    await (good(0) if method == "stop" else good())  # else it outlives the test


class Substitute:
    """A part of the service, one method of which is another."""

    def __init__(self, part: Any, method: str, other: Any) -> None:
        self._part = part
        setattr(self, method, other)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._part, name)
