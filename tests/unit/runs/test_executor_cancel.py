"""Cancelling runs: whatever they do, exactly one terminal event ends them."""

from __future__ import annotations

import asyncio
import gc
import random
import threading

import pytest
from structlog.testing import capture_logs

from polos.v1.run_pb2 import RunState
from polos_client.errors import RunNotFound
from polos_service.runs import executor as module
from polos_service.runs.attempt import Attempt, StepOutput
from polos_service.runs.context import RunContext
from polos_service.store.sqlite import SqliteStore
from polos_service.tools.local import in_thread
from tests.support.runs import done, executing, kinds, runnable, text
from tests.support.stores import all_events, cancel, events_of, new_run, settled, soon, until

CANCELLED = RunState.RUN_STATE_CANCELLED


pytestmark = pytest.mark.usefixtures("impatient")


async def test_a_running_run_is_cancelled_in_the_middle_of_a_step(store: SqliteStore) -> None:
    begun, cleaned = asyncio.Event(), asyncio.Event()

    async def work(attempt: Attempt) -> StepOutput:
        await attempt.emit(text("half", attempt))
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            cleaned.set()
        raise AssertionError

    async def run(ctx: RunContext) -> None:
        await ctx.step("a", "tool", work)

    async with executing(store, runnable(run)) as executor:
        run_id = await store.create(new_run())
        await soon(begun.wait())
        await executor.cancel("default", run_id)
        events = await all_events(store, run_id)
        assert cleaned.is_set()
    assert kinds(events) == ["step_start a/1", "text_delta a/1", "run_cancelled"]
    assert (await store.get("default", run_id)).state == CANCELLED


async def test_a_queued_run_is_cancelled_before_a_slot_is_free(store: SqliteStore) -> None:
    begun: list[str] = []

    async def run(ctx: RunContext) -> None:
        begun.append(ctx.run_id)
        await asyncio.Event().wait()

    async with executing(store, runnable(run), limit=1) as executor:
        first = await store.create(new_run())
        await until(lambda: begun == [first])
        second, third = await store.create(new_run()), await store.create(new_run())
        await executor.cancel("default", second)
        assert kinds(await all_events(store, second)) == ["run_cancelled"]
        await executor.cancel("default", first)
        await all_events(store, first)
        await until(lambda: begun == [first, third])


async def test_a_run_of_an_agent_that_is_not_loaded_is_cancelled(store: SqliteStore) -> None:
    async with executing(store, {}) as executor:
        run_id = await store.create(new_run(workflow_id="gone"))
        await executor.cancel("default", run_id)
        assert kinds(await all_events(store, run_id)) == ["run_cancelled"]


async def test_a_cancellation_on_disk_is_obeyed_after_a_restart(store: SqliteStore) -> None:
    async def run(_ctx: RunContext) -> None:
        raise AssertionError

    run_id = await store.create(new_run())
    await store.command("default", run_id, cancel(run_id))
    async with executing(store, runnable(run)):
        assert kinds(await all_events(store, run_id)) == ["run_cancelled"]


async def test_a_blocking_function_does_not_keep_its_run_from_ending(store: SqliteStore) -> None:
    begun, free = threading.Event(), threading.Event()

    def block() -> None:
        begun.set()
        free.wait(60)

    async def work(attempt: Attempt) -> StepOutput:
        await in_thread(block)
        return await done(attempt)

    async def run(ctx: RunContext) -> None:
        await ctx.step("a", "tool", work)

    async with executing(store, runnable(run)) as executor:
        run_id = await store.create(new_run())
        await until(begun.is_set)
        await executor.cancel("default", run_id)
        events = await all_events(store, run_id)
        await until(lambda: executor.running == 0)
        assert not free.is_set()
        free.set()
    assert kinds(events) == ["step_start a/1", "run_cancelled"]


async def test_code_that_swallows_cancellation_does_not_keep_its_run_from_ending(
    store: SqliteStore,
) -> None:
    begun, free, over = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def work(attempt: Attempt) -> StepOutput:
        begun.set()
        while not free.is_set():
            try:
                await free.wait()
            except asyncio.CancelledError:
                continue
        return StepOutput(result_json="1")

    async def run(ctx: RunContext) -> None:
        try:
            await ctx.step("a", "tool", work)
        finally:
            over.set()

    with capture_logs() as logs:
        async with executing(store, runnable(run)) as executor:
            run_id = await store.create(new_run())
            await soon(begun.wait())
            await executor.cancel("default", run_id)
            events = await all_events(store, run_id)
            await until(lambda: executor.running == 0)
            free.set()
            await soon(over.wait())
            await settled()
            assert await events_of(store, run_id) == events, "the late step writes nothing"
    assert kinds(events) == ["step_start a/1", "run_cancelled"]
    assert logs == [], "a run that was cancelled has not failed"


@pytest.mark.parametrize("raised", [RuntimeError("late"), SystemExit(1)], ids=repr)
async def test_code_that_fails_while_it_is_cancelled_ends_its_run_as_cancelled(
    store: SqliteStore, raised: BaseException
) -> None:
    begun = asyncio.Event()

    async def run(_ctx: RunContext) -> None:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            raise raised

    failures: list[dict[str, object]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, failure: failures.append(failure))
    async with executing(store, runnable(run)) as executor:
        run_id = await store.create(new_run())
        await soon(begun.wait())
        await executor.cancel("default", run_id)
        assert kinds(await all_events(store, run_id)) == ["run_cancelled"]
        await until(lambda: executor.running == 0)
    gc.collect()
    assert failures == []


async def test_cancelling_a_run_that_has_ended_changes_nothing(store: SqliteStore) -> None:
    async def run(ctx: RunContext) -> None:
        await ctx.step("a", "tool", done)

    async with executing(store, runnable(run)) as executor:
        run_id = await store.create(new_run())
        events = await all_events(store, run_id)
        record = await store.get("default", run_id)
        await executor.cancel("default", run_id)
        await settled()
        assert await events_of(store, run_id) == events
        assert await store.get("default", run_id) == record


async def test_cancelling_an_unknown_run_is_refused(store: SqliteStore) -> None:
    async with executing(store, {}) as executor:
        with pytest.raises(RunNotFound):
            await executor.cancel("default", "nothing")


async def test_a_run_of_another_project_is_not_cancelled(store: SqliteStore) -> None:
    async with executing(store, {}) as executor:
        run_id = await store.create(new_run(project="mine"))
        with pytest.raises(RunNotFound):
            await executor.cancel("theirs", run_id)
        assert (await store.get("mine", run_id)).state == RunState.RUN_STATE_QUEUED


async def test_exactly_one_terminal_event_however_cancel_and_finish_race(
    store: SqliteStore,
) -> None:
    chance = random.Random(7)

    async def run(ctx: RunContext) -> None:
        for number in range(chance.randrange(4)):
            await ctx.step(f"{number}", "tool", done)

    async def one(executor: module.Executor) -> str:
        run_id = await store.create(new_run())
        for _ in range(chance.randrange(60)):
            await asyncio.sleep(0)
        await asyncio.gather(executor.cancel("default", run_id), executor.cancel("default", run_id))
        return kinds(await all_events(store, run_id))[-1]

    with capture_logs() as logs:
        async with executing(store, runnable(run), limit=5) as executor:
            endings = [
                ending
                for _ in range(30)
                for ending in await asyncio.gather(*(one(executor) for _ in range(10)))
            ]
            await until(lambda: executor.running == 0)
    assert set(endings) == {"run_cancelled", "workflow_finish"}, "the race was none"
    assert logs == []


async def test_a_cancelled_run_tells_what_its_steps_used(store: SqliteStore) -> None:
    begun = asyncio.Event()

    async def run(ctx: RunContext) -> None:
        await ctx.step("llm:1", "llm", done)
        begun.set()
        await asyncio.Event().wait()

    async with executing(store, runnable(run)) as executor:
        run_id = await store.create(new_run())
        await soon(begun.wait())
        await executor.cancel("default", run_id)
        events = await all_events(store, run_id)
    assert events[-1].run_cancelled.total_steps == 1
    assert not events[-1].run_cancelled.HasField("cost")
