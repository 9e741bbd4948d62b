"""How the executor lets go of runs: at a stop, and of those that take the process down."""

from __future__ import annotations

import asyncio
import inspect
from typing import Any

from polos.v1.error_pb2 import FailureReason
from polos.v1.run_pb2 import RunState
from polos_service.runs.attempt import Attempt, StepOutput
from polos_service.runs.clock import SystemClock
from polos_service.runs.context import RunContext
from polos_service.runs.endings import MAX_CLAIMS
from polos_service.runs.executor import Executor
from polos_service.store.sqlite import SqliteStore
from tests.support.runs import done, executing, kinds, runnable
from tests.support.stores import all_events, events_of, new_run, soon, until


async def test_stop_releases_a_run_where_its_next_step_would_begin(store: SqliteStore) -> None:
    begun, free = asyncio.Event(), asyncio.Event()

    async def first(_attempt: Attempt) -> StepOutput:
        begun.set()
        await free.wait()
        return StepOutput(result_json="1")

    async def run(ctx: RunContext) -> None:
        await ctx.step("first", "tool", first)
        await ctx.step("second", "tool", done)

    run_id = await store.create(new_run())
    executor = Executor(store, runnable(run), SystemClock(), 10)
    executor.start()
    await soon(begun.wait())
    stopping = asyncio.create_task(executor.stop(0.2))
    await until(lambda: executor._stopping)
    free.set()
    await soon(stopping)
    assert kinds(await events_of(store, run_id)) == ["step_start first/1", "step_finish first/1"]
    assert (await store.get("default", run_id)).state == RunState.RUN_STATE_QUEUED


async def test_a_run_that_takes_the_process_down_again_and_again_is_given_up(
    store: SqliteStore,
) -> None:
    run_id = await store.create(new_run())
    for _ in range(MAX_CLAIMS):
        claim = await store.claim_run("default", run_id)
        assert claim is not None
        store._db.execute("UPDATE runs SET state = ?", (RunState.RUN_STATE_QUEUED,))  # it died

    async def run(_ctx: RunContext) -> None:
        raise AssertionError("it would die again")

    async with executing(store, runnable(run)):
        (event,) = await all_events(store, run_id)
    assert event.error.reason == FailureReason.FAILURE_REASON_RUN_GIVEN_UP
    assert str(MAX_CLAIMS) in event.error.message


async def test_a_run_that_was_released_often_is_not_given_up(store: SqliteStore) -> None:
    run_id = await store.create(new_run())
    for _ in range(MAX_CLAIMS + 1):
        claim = await store.claim_run("default", run_id)
        assert claim is not None
        await store.release(claim)

    async def run(ctx: RunContext) -> None:
        await ctx.step("a", "tool", done)

    async with executing(store, runnable(run)):
        events = await all_events(store, run_id)
    assert kinds(events)[-1] == "workflow_finish"


async def test_a_run_whose_task_is_cancelled_before_it_begins_is_released(
    store: SqliteStore,
) -> None:
    async def run(ctx: RunContext) -> None:
        await ctx.step("a", "tool", done)

    run_id = await store.create(new_run())
    async with executing(store, runnable(run)) as executor:
        while not executor.running:
            await asyncio.sleep(0)
        (work,) = executor._runs
        coroutine: Any = work.get_coro()
        assert inspect.getcoroutinestate(coroutine) == inspect.CORO_CREATED
        work.cancel()
        events = await all_events(store, run_id)
    assert kinds(events)[-1] == "workflow_finish"
