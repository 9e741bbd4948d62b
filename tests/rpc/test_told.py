"""What the service's own log tells an operator."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from polos import Agent, tool
from polos_client.define.scripted import call, script
from polos_client.errors import StoreUnavailable
from polos_service.config import Settings, SettingsInvalidError
from polos_service.server import Service
from polos_service.store.sqlite import SqliteStore
from tests.support.service import serving, until
from tests.support.stores import new_run


async def test_runs_whose_code_is_not_loaded_are_told(tmp_path: Path) -> None:
    store = await SqliteStore.open(tmp_path / "runs.db")
    for _ in range(2):
        await store.create(new_run(workflow_id="gone"))
    await store.close()
    with capture_logs() as logs:
        settings = Settings(listen="127.0.0.1:0", store=f"sqlite://{tmp_path / 'runs.db'}")
        await (await Service.start(settings)).stop(0)
    (told,) = [one for one in logs if one["event"] == "runs_wait_for_code"]
    assert (told["runnable"], told["runs"]) == ("gone", 2)
    assert "polos runs cancel" in told["advice"]
    assert "`Polos([...])`" in told["advice"]


async def test_runs_that_are_queued_later_without_their_code_are_told_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("polos_service.server.CODE_PERIOD", 0.01)
    settings = Settings(listen="127.0.0.1:0", store=f"sqlite://{tmp_path / 'runs.db'}")
    looks = 0
    with capture_logs() as logs:
        service = await Service.start(settings)
        store = service._store
        waiting = store.waiting

        async def counted() -> Mapping[str, int]:
            nonlocal looks
            looks += 1
            if looks == 2:
                raise StoreUnavailable("away")
            return await waiting()

        monkeypatch.setattr(store, "waiting", counted)
        for runnable_id in ("gone", "gone", "lost"):
            await store.create(new_run(workflow_id=runnable_id))
        await until(lambda: looks > 5, "looks")
        await service.stop(0)
    told = [one for one in logs if one["event"] == "runs_wait_for_code"]
    assert sorted(one["runnable"] for one in told) == ["gone", "lost"]


async def test_what_a_tool_raises_is_told_with_its_traceback(tmp_path: Path) -> None:
    @tool
    def broken() -> None:
        raise LookupError("no station")

    agent = Agent("breaks", "scripted", script(call("broken"), "Sorry."), tools=[broken])
    with capture_logs() as logs:
        async with serving(tmp_path, agent) as served:
            result = await agent.run(served.client, "Go.")
    (told,) = [one for one in logs if one["event"] == "tool_failed"]
    assert (told["tool"], told["run_id"]) == ("broken", result.agent_run_id)
    assert isinstance(told["exc_info"], LookupError)
    assert told["exc_info"].__traceback__ is not None


def test_a_base_url_without_its_scheme_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", "127.0.0.1:8080")
    with pytest.raises(SettingsInvalidError, match="http://"):
        Settings.load()
