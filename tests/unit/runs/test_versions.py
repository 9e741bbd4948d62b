"""Old and new code in one fleet: a run goes on where its own version of the code is."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from polos_service.runs import executor as module
from polos_service.runs.context import RunContext
from polos_service.runs.endings import MAX_CLAIMS
from polos_service.runs.executor import Executor
from polos_service.store import Claim
from polos_service.store.sqlite import SqliteStore
from tests.support.runs import Code, context, done, executing, opened
from tests.support.stores import all_events, claimed, soon


@pytest.fixture
async def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[SqliteStore]:
    """Give a store on which several executors work, as several processes do on NATS."""
    monkeypatch.setattr(SqliteStore, "shared", True)
    monkeypatch.setattr(module, "PASS_PAUSE", 0.01)
    monkeypatch.setattr(module, "PASS_GROWTH", 1.0)
    monkeypatch.setattr(module, "RETRY_PAUSE", 0.01)
    async with opened(tmp_path) as store:
        yield store


async def held(store: SqliteStore, version: bytes) -> Claim:
    """Begin a run with a version of its code, up to the end of step `a`, and hold it."""
    claim = await claimed(store, definition=version)
    async with context(store, claim) as ctx:
        await soon(ctx.step("a", "tool", done))
    return claim


async def begun(store: SqliteStore, version: bytes) -> str:
    """Leave a run in the queue that has begun with a version of its code."""
    claim = await held(store, version)
    await store.release(claim)
    return claim.run_id


@asynccontextmanager
async def fleet(store: SqliteStore, *codes: Code) -> AsyncIterator[list[Executor]]:
    """Give executors, each with one code."""
    async with AsyncExitStack() as stack:
        yield [await stack.enter_async_context(executing(store, {"agent": code})) for code in codes]


def steps(version: str, went: list[str], *keys: str) -> Code:
    """Return a version of the code, which asks for these steps and tells that it ran."""

    async def run(ctx: RunContext) -> None:
        went.append(version)
        for key in keys:
            await ctx.step(key, "tool", done)

    return Code(run, version=version.encode())


async def test_a_run_goes_on_with_its_own_version_of_the_code(store: SqliteStore) -> None:
    went: list[str] = []
    run_ids = [await begun(store, b"new") for _ in range(5)]
    old, new = steps("old", went, "a", "c"), steps("new", went, "a", "b")
    with capture_logs() as logs:
        async with fleet(store, old):
            await soon(passed_on(logs))
            async with fleet(store, new):
                for run_id in run_ids:
                    events = await all_events(store, run_id)
                    assert events[-2].step_finish.step_key == "b"
    assert went == ["new"] * 5


async def passed_on(logs: Sequence[Mapping[str, Any]]) -> None:
    """Wait until a run was left."""
    while not any(one["event"] == "run_passed_on" for one in logs):
        await asyncio.sleep(0.001)


async def test_a_run_whose_version_nobody_has_goes_on_with_another_after_a_while(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "PASSES", MAX_CLAIMS + 2)  # to leave it does not give it up
    went: list[str] = []
    first, second = await held(store, b"gone"), await held(store, b"gone")
    await store.release(first)
    with capture_logs() as logs:
        async with fleet(store, steps("new", went, "a", "b")):
            await all_events(store, first.run_id)
            await store.release(second)
            await all_events(store, second.run_id)
    left = [one["run_id"] for one in logs if one["event"] == "run_passed_on"]
    assert left == [first.run_id] * module.PASSES  # it is known then that nobody has the version
    assert went == ["new", "new"]


async def test_code_that_does_not_fit_leaves_the_run_until_there_is_code_that_does(
    store: SqliteStore,
) -> None:
    went: list[str] = []
    run_id = await begun(store, b"gone")

    async def changed(ctx: RunContext) -> None:
        await ctx.step("a", "llm", done)

    with capture_logs() as logs:
        async with fleet(store, Code(changed, version=b"wrong")):
            while not any(one["event"] == "run_left" for one in logs):
                await asyncio.sleep(0.001)
            async with fleet(store, steps("gone", went, "a", "b")):
                await all_events(store, run_id)
    assert went == ["gone"]


async def test_a_run_that_has_not_begun_belongs_to_no_version(store: SqliteStore) -> None:
    went: list[str] = []
    claim = await claimed(store, definition=b"old")
    await store.release(claim)
    with capture_logs() as logs:
        async with fleet(store, steps("new", went, "a")):
            await all_events(store, claim.run_id)
    assert went == ["new"]
    assert logs == []


async def test_a_store_of_one_process_does_not_wait_for_others(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(SqliteStore, "shared", False)
    run_id = await begun(store, b"gone")
    with capture_logs() as logs:
        async with fleet(store, steps("new", [], "a", "b")):
            await all_events(store, run_id)
    assert logs == []


async def test_a_run_of_another_version_is_cancelled_at_once(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "PASS_PAUSE", 1000.0)
    run_id = await begun(store, b"gone")
    with capture_logs() as logs:
        async with fleet(store, steps("new", [], "a", "b")) as (executor,):
            await soon(passed_on(logs))
            await executor.cancel("default", run_id)
            events = await all_events(store, run_id)
    assert events[-1].HasField("run_cancelled")
