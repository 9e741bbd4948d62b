"""Runs that this process cannot go on with: they are left to others, and still end."""

from __future__ import annotations

import asyncio
import time

import pytest
from structlog.testing import capture_logs

from polos.v1.error_pb2 import FailureReason
from polos.v1.run_pb2 import RunState
from polos_service.errors import Unable
from polos_service.runs import executor as module
from polos_service.runs.context import RunContext
from polos_service.runs.endings import MAX_CLAIMS
from polos_service.store.sqlite import SqliteStore
from tests.support.runs import FakeClock, done, executing, kinds, runnable
from tests.support.stores import all_events, new_run, soon, until


class Code:
    """A run's code that a process is unable to go on with, so many times."""

    def __init__(self, times: float) -> None:
        self.begun = 0
        self._times = times
        self.tried = asyncio.Event()

    async def __call__(self, ctx: RunContext) -> None:
        await ctx.step("a", "tool", done)
        self.begun += 1
        self.tried.set()
        if self.begun <= self._times:
            raise Unable("This process has no such tool.", tool="hammer")


async def test_a_run_is_left_to_others_with_pauses_that_grow_and_never_given_up(
    store: SqliteStore,
) -> None:
    code, clock = Code(times=MAX_CLAIMS * 3), FakeClock()
    with capture_logs() as logs:
        async with executing(store, runnable(code), clock=clock):
            run_id = await store.create(new_run())
            events = await all_events(store, run_id)
    assert kinds(events) == ["step_start a/1", "step_finish a/1", "workflow_finish"]
    pauses = [pause for pause in clock.slept if pause != module.EXPIRY_PERIOD]
    assert pauses == [3, 9, 27, *[60] * (MAX_CLAIMS * 3 - 4)]
    assert [one["event"] for one in logs] == ["run_left"] * MAX_CLAIMS * 3
    told = {key: logs[0][key] for key in ("run_id", "reason", "tool")}
    assert told == {
        "run_id": run_id,
        "reason": "This process has no such tool.",
        "tool": "hammer",
    }


async def test_a_run_is_released_for_others_at_a_stop(store: SqliteStore) -> None:
    code = Code(times=1)
    with capture_logs():
        async with executing(store, runnable(code)) as executor:
            run_id = await store.create(new_run())
            await until(lambda: bool(executor._resting))
    assert (await store.get("default", run_id)).state == RunState.RUN_STATE_QUEUED
    async with executing(store, runnable(code)):
        assert kinds(await all_events(store, run_id))[-1] == "workflow_finish"


async def test_a_run_is_cancelled_in_its_pause(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "RETRY_PAUSE", 1000.0)
    monkeypatch.setattr(module, "RETRY_PAUSE_LIMIT", 1000.0)
    code = Code(times=float("inf"))
    with capture_logs():
        async with executing(store, runnable(code)) as executor:
            run_id = await store.create(new_run())
            await soon(code.tried.wait())
            await until(lambda: executor.running == 0)
            await executor.cancel("default", run_id)
            events = await all_events(store, run_id)
    assert kinds(events)[-1] == "run_cancelled"


async def test_a_run_ends_at_its_deadline_though_its_pause_would_be_longer(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "RETRY_PAUSE", 0.01)
    monkeypatch.setattr(module, "RETRY_PAUSE_GROWTH", 1e9)
    monkeypatch.setattr(module, "RETRY_PAUSE_LIMIT", 1e9)
    code = Code(times=float("inf"))
    with capture_logs():
        async with executing(store, runnable(code)):
            run_id = await store.create(new_run(deadline=time.time_ns() + 300_000_000))
            events = await all_events(store, run_id)
    assert events[-1].error.reason == FailureReason.FAILURE_REASON_RUN_TIMEOUT
