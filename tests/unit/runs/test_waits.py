"""Waits: how they begin and end, park their run, and are the same when the run is run again."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import pytest

from polos.v1.event_pb2 import Event, Resumed, WaitKind
from polos.v1.run_pb2 import RunState, Wait
from polos_service.runs import drive
from polos_service.runs.activity import Activity
from polos_service.runs.answers import Answer
from polos_service.runs.attempt import Attempt, StepOutput
from polos_service.runs.clock import SystemClock
from polos_service.runs.context import RunContext
from polos_service.runs.executor import Executor
from polos_service.store import CANCEL, ENDED, Command
from polos_service.store.sqlite import SqliteStore
from tests.support.runs import Code, FakeClock, done, opened, runnable
from tests.support.service import until as until_
from tests.support.stores import events_of, new_run


async def until(holds: Callable[[], Awaitable[bool]]) -> None:
    """Wait until it holds."""
    await until_(holds, "what the test waits for")


TIMER, SUSPEND = WaitKind.WAIT_KIND_TIMER, WaitKind.WAIT_KIND_SUSPEND
YES = Answer(data_json='{"ok": true}', request_id="r-1", principal="ann")
Function = Callable[[RunContext], Awaitable[object]]


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SqliteStore]:
    async with opened(tmp_path) as store:
        yield store


@asynccontextmanager
async def running(
    store: SqliteStore, function: Function, threshold: float = 60.0
) -> AsyncIterator[str]:
    """Run a function as a run, whose id is given."""
    executor = Executor(store, runnable(function), SystemClock(), 10, threshold=threshold)
    executor.start()
    try:
        yield await store.create(new_run())
    finally:
        await executor.stop(0)


async def ended(store: SqliteStore, run_id: str) -> list[Event]:
    """Wait for the run's end, and return its events."""

    async def over() -> bool:
        return (await store.get("default", run_id)).state in ENDED

    await until(over)
    return await events_of(store, run_id)


async def answer(store: SqliteStore, run_id: str, key: str, said: Answer = YES) -> Command | None:
    return await store.command("default", run_id, said.to(run_id, key))


async def waits(store: SqliteStore, run_id: str) -> list[str]:
    """Return the keys of the run's open waits."""
    found = await store.open_waits("default", run_id)
    return [Wait.FromString(one.data).step_key for one in found]


async def state(store: SqliteStore, run_id: str) -> RunState.ValueType:
    return (await store.get("default", run_id)).state


def soon(seconds: float = 0.02) -> int:
    return time.time_ns() + round(seconds * 1e9)


def names(events: list[Event]) -> list[str | None]:
    return [event.WhichOneof("payload") for event in events]


async def test_a_timer_ends_at_its_time(store: SqliteStore) -> None:
    async def run(ctx: RunContext) -> None:
        resumed = await ctx.wait("nap", TIMER, until=soon())
        assert resumed.WhichOneof("outcome") is None

    async with running(store, run) as run_id:
        events = await ended(store, run_id)
    assert names(events) == ["suspended", "resumed", "workflow_finish"]
    assert events[1].resumed == Resumed(step_key="nap", wait_id=1, kind=TIMER)


async def test_an_answer_ends_a_wait_and_says_whose_it_is(store: SqliteStore) -> None:
    async def run(ctx: RunContext) -> None:
        resumed = await ctx.wait("ask", SUSPEND, data_json='{"q": 1}')
        assert resumed.data_json == YES.data_json

    async with running(store, run) as run_id:
        await until(lambda: is_open(store, run_id, ["ask"]))
        await answer(store, run_id, "ask")
        events = await ended(store, run_id)
        assert await waits(store, run_id) == []
    assert events[0].suspended.data_json == '{"q": 1}'
    expected = Resumed(step_key="ask", wait_id=1, kind=SUSPEND, data_json=YES.data_json)
    expected.request_id, expected.principal = "r-1", "ann"
    assert events[1].resumed == expected


async def is_open(store: SqliteStore, run_id: str, keys: list[str]) -> bool:
    return await waits(store, run_id) == keys


async def test_an_early_answer_is_kept(store: SqliteStore) -> None:
    begin = asyncio.Event()

    async def run(ctx: RunContext) -> None:
        await begin.wait()
        assert (await ctx.wait("ask", SUSPEND)).data_json == YES.data_json

    async with running(store, run) as run_id:
        await answer(store, run_id, "ask")
        begin.set()
        assert names(await ended(store, run_id))[-1] == "workflow_finish"


async def test_the_first_answer_wins(store: SqliteStore) -> None:
    async def run(ctx: RunContext) -> None:
        await ctx.wait("ask", SUSPEND)

    async with running(store, run) as run_id:
        others = [Answer(data_json=str(number)) for number in range(5)]
        stand = await asyncio.gather(*(answer(store, run_id, "ask", one) for one in others))
        assert stand == [others[0].to(run_id, "ask")] * 5
        assert (await ended(store, run_id))[1].resumed.data_json == "0"
        assert await answer(store, run_id, "ask") is None


async def test_nobody_answers(store: SqliteStore) -> None:
    async def run(ctx: RunContext) -> None:
        assert (await ctx.wait("ask", SUSPEND, until=soon())).expired

    async with running(store, run) as run_id:
        assert names(await ended(store, run_id))[-1] == "workflow_finish"


async def test_a_run_that_only_waits_is_parked_and_woken_by_an_answer(store: SqliteStore) -> None:
    begun = []

    async def run(ctx: RunContext) -> None:
        begun.append(1)
        await ctx.step("first", "run", done)
        await ctx.wait("ask", SUSPEND)
        await ctx.step("last", "run", done)

    async with running(store, run, threshold=0.02) as run_id:
        await until(lambda: is_suspended(store, run_id))
        assert await waits(store, run_id) == ["ask"]
        await answer(store, run_id, "ask")
        events = await ended(store, run_id)
    assert len(begun) == 2
    assert names(events) == [
        *("step_start", "step_finish", "suspended", "resumed"),
        *("step_start", "step_finish", "workflow_finish"),
    ]


async def is_suspended(store: SqliteStore, run_id: str) -> bool:
    return await state(store, run_id) == RunState.RUN_STATE_SUSPENDED


async def test_a_parked_run_is_woken_at_its_time(store: SqliteStore) -> None:
    at = soon(0.5)

    async def run(ctx: RunContext) -> None:
        await ctx.wait("nap", TIMER, until=at)

    async with running(store, run, threshold=0.02) as run_id:
        await until(lambda: is_suspended(store, run_id))
        events = await ended(store, run_id)
    assert events[1].create_time.ToNanoseconds() >= at
    assert names(events) == ["suspended", "resumed", "workflow_finish"]


async def test_a_parked_run_is_cancelled(store: SqliteStore) -> None:
    async def run(ctx: RunContext) -> None:
        await ctx.wait("ask", SUSPEND)

    executor = Executor(store, runnable(run), SystemClock(), 10, threshold=0.02)
    executor.start()
    run_id = await store.create(new_run())
    await until(lambda: is_suspended(store, run_id))
    await executor.cancel("default", run_id)
    events = await ended(store, run_id)
    await executor.stop(0)
    assert names(events) == ["suspended", "run_cancelled"]
    assert await waits(store, run_id) == []


async def test_a_wait_that_the_code_gives_up_is_closed_and_stays_so(store: SqliteStore) -> None:
    winners = []

    async def run(ctx: RunContext) -> None:
        ask = asyncio.create_task(ctx.wait("ask", SUSPEND))
        nap = asyncio.create_task(ctx.wait("nap", TIMER, until=soon()))
        finished, left = await asyncio.wait({ask, nap}, return_when=asyncio.FIRST_COMPLETED)
        winners.append(finished == {nap})
        for one in left:
            one.cancel()
        await ctx.wait("end", SUSPEND)

    async with running(store, run, threshold=0.05) as run_id:
        await until(lambda: is_suspended(store, run_id))
        assert await waits(store, run_id) == ["end"]
        await answer(store, run_id, "end")
        events = await ended(store, run_id)
    assert winners == [True, True]
    given_up = [one.resumed.step_key for one in events if one.resumed.cancelled]
    assert given_up == ["ask"]


@pytest.mark.parametrize("first", ["a", "b"])
async def test_the_winner_of_a_race_is_the_same_when_the_run_is_run_again(
    store: SqliteStore, first: str
) -> None:
    winners = []

    async def body(key: str, attempt: Attempt) -> StepOutput:
        if key != first:
            await asyncio.sleep(0.01)
        return await done(attempt)

    async def run(ctx: RunContext) -> None:
        steps = {asyncio.create_task(ctx.step(key, "run", partial(body, key))): key for key in "ab"}
        finished, left = await asyncio.wait(steps, return_when=asyncio.FIRST_COMPLETED)
        winners.append([steps[one] for one in finished])
        await asyncio.wait(left)
        await ctx.wait("ask", SUSPEND)

    async with running(store, run, threshold=0.02) as run_id:
        await until(lambda: is_suspended(store, run_id))
        await answer(store, run_id, "ask")
        await ended(store, run_id)
    assert winners == [[first], [first]]


async def test_an_answer_that_comes_while_the_run_parks_is_not_lost(store: SqliteStore) -> None:
    suspend = store.suspend

    async def late(claim: object, **told: object) -> bool:
        await answer(store, run_id, "ask")
        return await suspend(claim, **told)  # type: ignore[arg-type]

    store.suspend = late  # type: ignore[method-assign]

    async def run(ctx: RunContext) -> None:
        await ctx.wait("ask", SUSPEND)

    async with running(store, run, threshold=0.02) as run_id:
        assert names(await ended(store, run_id)) == ["suspended", "resumed", "workflow_finish"]


async def test_nothing_begins_while_a_run_is_parked(store: SqliteStore) -> None:
    refunds = []

    async def run(ctx: RunContext) -> None:
        try:
            await ctx.wait("ask", SUSPEND)
        except BaseException:
            await ctx.step("refund", "run", done)
            refunds.append(1)
            raise

    async with running(store, run, threshold=0.02) as run_id:
        await until(lambda: is_suspended(store, run_id))
        await answer(store, run_id, "ask")
        assert names(await ended(store, run_id)) == ["suspended", "resumed", "workflow_finish"]
    assert refunds == []


async def test_cancel_ends_a_run_that_waits_in_place(store: SqliteStore) -> None:
    async def run(ctx: RunContext) -> None:
        await ctx.wait("ask", SUSPEND)

    async with running(store, run) as run_id:
        await until(lambda: is_open(store, run_id, ["ask"]))
        await store.command("default", run_id, Command(id=CANCEL, kind=CANCEL, run_id=run_id))
        assert names(await ended(store, run_id)) == ["suspended", "resumed", "run_cancelled"]


@pytest.mark.parametrize("kind", ["wait", "step"])
async def test_what_is_open_when_the_process_stops_goes_on_in_the_next(
    store: SqliteStore, kind: str
) -> None:
    began = asyncio.Event()
    stopped = False

    async def body(_: Attempt) -> StepOutput:
        began.set()
        if not stopped:
            await asyncio.Event().wait()
        return StepOutput(result_json="1")

    async def run(ctx: RunContext) -> None:
        if kind == "step":
            await ctx.step("work", "run", body, abandons=True)
        else:
            began.set()
            await ctx.wait("ask", SUSPEND)

    async with running(store, run) as run_id:
        await began.wait()
        if kind == "wait":
            await until(lambda: is_open(store, run_id, ["ask"]))
    stopped = True
    await answer(store, run_id, "ask")
    executor = Executor(store, runnable(run), SystemClock(), 10)
    executor.start()
    events = await ended(store, run_id)
    await executor.stop(0)
    assert names(events)[-1] == "workflow_finish"
    assert not any(one.resumed.cancelled or one.step_finish.HasField("failure") for one in events)


async def test_an_answer_that_has_come_when_the_code_is_stopped_is_not_lost(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The run is about to be parked, and its inbox has been read: nobody looks there again."""
    stopped = drive.stopped

    async def late(*tasks: asyncio.Task[object]) -> None:
        monkeypatch.setattr(drive, "stopped", stopped)
        await answer(store, run_id, "ask")
        await asyncio.sleep(0.05)  # the inbox is read meanwhile
        await stopped(*tasks)

    monkeypatch.setattr(drive, "stopped", late)

    async def run(ctx: RunContext) -> None:
        await ctx.wait("ask", SUSPEND)

    async with running(store, run, threshold=0.02) as run_id:
        assert names(await ended(store, run_id)) == ["suspended", "resumed", "workflow_finish"]


async def test_an_answer_that_the_code_has_not_seen_keeps_the_run_from_being_parked() -> None:
    activity = Activity(FakeClock(), 10.0)
    activity.wait(1, None)
    rest = await activity.parkable()
    assert activity.is_still(rest)
    activity.touch()
    assert not activity.is_still(rest)


@pytest.mark.parametrize("what", ["wait", "step"])
async def test_time_in_waits_does_not_count_towards_a_limit_of_work(
    store: SqliteStore, what: str
) -> None:
    async def run(ctx: RunContext) -> None:
        if what == "wait":
            await ctx.wait("nap", TIMER, until=soon(0.6))
        else:
            await ctx.step("work", "run", never)

    async def never(_: Attempt) -> StepOutput:
        await asyncio.Event().wait()
        raise AssertionError

    executor = Executor(
        store, {"agent": Code(run, work_limit=0.5)}, SystemClock(), 10, threshold=0.05
    )
    executor.start()
    run_id = await store.create(new_run())
    events = await ended(store, run_id)
    await executor.stop(0)
    expected = "workflow_finish" if what == "wait" else "error"
    assert names(events)[-1] == expected


async def test_a_wait_about_to_end_is_not_polled() -> None:
    """Its end may take a while: the store may be slow to take it."""
    clock = FakeClock()
    activity = Activity(clock, 10.0)
    activity.wait(1, clock.now())
    activity.wait(2, None)
    parkable = asyncio.create_task(activity.parkable())
    for _ in range(100):
        await asyncio.sleep(0)
    assert clock.slept == []
    activity.over(1)
    rest = await parkable
    assert rest.wake_at is None
    assert clock.slept == [10.0]


async def test_a_limit_of_work_is_not_polled_while_waits_are_open(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks: list[float | None] = []
    remaining = drive.Drive._remaining

    def noting(one: drive.Drive) -> float | None:
        looks.append(remaining(one))
        return looks[-1]

    monkeypatch.setattr(drive.Drive, "_remaining", noting)

    async def run(ctx: RunContext) -> None:
        await asyncio.sleep(0.1)
        await ctx.wait("nap", TIMER, until=soon(0.5))

    executor = Executor(store, {"agent": Code(run, work_limit=0.3)}, SystemClock(), 10)
    executor.start()
    await ended(store, await store.create(new_run()))
    await executor.stop(0)
    assert len(looks) < 20
