"""The store's file under a service that runs: links to it, and what destroys it."""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from polos_client.calls.client import PolosClient
from polos_client.define.agent import Agent
from polos_client.define.scripted import call, say, script, turn
from tests.support.process import POLOS, ServiceProcess, environment, until

APP = """
import asyncio
from pathlib import Path

from polos_client.define.agent import Agent
from polos_client.define.scripted import call, say, script, turn
from polos_client.define.tool import tool


@tool
async def work() -> str:
    with Path("calls").open("a") as file:
        file.write("call\\n")
    await asyncio.sleep(600)
    return "done"


agent = Agent("worker", "scripted", script(turn(call("work")), turn(say("Done."))), tools=(work,))
"""
WORKER = Agent("worker", "scripted", script(turn(call("work")), turn(say("Done."))))
SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


async def health(service: ServiceProcess) -> int:
    async with grpc.aio.insecure_channel(service.address) as channel:
        stub: Any = health_pb2_grpc.HealthStub(channel)
        return int((await stub.Check(health_pb2.HealthCheckRequest())).status)


async def working(service: ServiceProcess, folder: Path) -> None:
    """Start a run, and wait until its tool is at work."""
    async with PolosClient(service.address) as client:
        await WORKER.invoke(client, {"input": "Go."})
    await until((folder / "calls").exists, "the tool is called")


def app_in(folder: Path) -> Path:
    app = folder / "app.py"
    app.write_text(APP)
    return app


def serve(app: Path, store: Path) -> subprocess.CompletedProcess[str]:
    """Run a further service on this store to its end, which must come."""
    return subprocess.run(
        [POLOS, "serve", app, "--listen", "127.0.0.1:0", "--store", f"sqlite://{store}"],
        cwd=app.parent,
        env=environment(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=False,
        text=True,
        timeout=60,
    )


def symbolic_link(path: Path) -> Path:
    link = path.with_name("link.db")
    link.symlink_to(path)
    return link


def hard_link(path: Path) -> Path:
    link = path.with_name("hard.db")
    link.hardlink_to(path)
    return link


def deleted_lock(path: Path) -> Path:
    path.with_name("runs.db.lock").unlink()
    return path


@pytest.mark.parametrize("way", [symbolic_link, hard_link, deleted_lock])
async def test_a_second_service_on_the_same_file_does_not_start(
    tmp_path: Path, way: Callable[[Path], Path]
) -> None:
    app = app_in(tmp_path)
    async with ServiceProcess(app, tmp_path / "runs.db", cwd=tmp_path) as service:
        await working(service, tmp_path)
        other = way(tmp_path / "runs.db")
        second = await asyncio.to_thread(serve, app, other)
        assert second.returncode != 0
        assert str(other) in second.stderr
        assert await health(service) == SERVING
        assert (tmp_path / "calls").read_text() == "call\n", "the tool runs once"


def deleted(path: Path) -> str:
    path.unlink()
    return "was deleted or moved"


def log_deleted(path: Path) -> str:
    path.with_name("runs.db-wal").unlink()
    return "was deleted or moved"


def head_overwritten(path: Path) -> str:
    with path.open("r+b") as file:
        file.write(os.urandom(100))
    return "was overwritten|is damaged"  # whichever look comes first


def pages_overwritten(path: Path) -> str:
    with path.open("r+b") as file:
        file.seek(4096)
        file.write(os.urandom(path.stat().st_size - 4096))
    return "is damaged"


@pytest.mark.parametrize("way", [deleted, log_deleted, head_overwritten, pages_overwritten])
async def test_a_file_that_is_destroyed_is_told_by_health_and_log(
    tmp_path: Path, way: Callable[[Path], str]
) -> None:
    async with ServiceProcess(app_in(tmp_path), tmp_path / "runs.db", cwd=tmp_path) as service:
        await working(service, tmp_path)
        assert await health(service) == SERVING
        what = way(tmp_path / "runs.db")
        line = await service.said("store_failed")
        assert str(tmp_path / "runs.db") in line
        assert re.search(what, line)
        await service.said("store_does_not_answer")
        assert await health(service) == NOT_SERVING
