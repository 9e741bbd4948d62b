"""Attempts and times across crashes, and with a clock that is set."""

from __future__ import annotations

import asyncio
import random
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from polos_client.define.context import WorkflowContext
from polos_client.define.workflow import workflow
from polos_client.errors import StepExecutionError
from polos_service.runs.frame import SECOND
from polos_service.store.sqlite import SqliteStore
from tests.support.flows import flowing, kinds, result_of
from tests.support.runs import SetClock
from tests.support.stores import HeldStore, until

HOUR = 3600 * SECOND

PATIENT = 1e6
"""Seconds before a run is parked: more than the clock is set forward."""


async def test_attempts_and_failures_count_across_kills(store: SqliteStore) -> None:
    """It raises, is killed in the pause and in an attempt, and raises until it has failed."""
    clock = SetClock()
    calls: list[int] = []

    async def work() -> None:
        calls.append(clock.now())
        if len(calls) == 2:
            await asyncio.Event().wait()
        raise ValueError(f"no {len(calls)}")

    @workflow(id="attempts")
    async def function(ctx: WorkflowContext) -> str:
        try:
            await ctx.step.run("work", work, max_retries=2, base_delay=60, max_delay=60)
        except StepExecutionError as error:
            return str(error)
        return "not reached"

    async with flowing(store, function, clock=clock, threshold=PATIENT) as flows:
        run_id = await flows.start(function)
        await flows.holds(run_id, "step_retry work 2")
        await flows.stop()
        clock.asked.clear()
        flows.begin()
        await until(lambda: any(30 < one < 60 for one in clock.asked))
        assert len(calls) == 1
        clock.shift += 61 * SECOND  # the rest of the pause
        await until(lambda: len(calls) == 2)
        await flows.stop()
        clock.asked.clear()
        flows.begin()
        await until(lambda: 60 in clock.asked)
        clock.shift += 61 * SECOND
        events = await flows.ended(run_id)
    assert kinds(events)[1:-1] == [
        "step_start work 1",
        "step_retry work 2",
        "step_retry work 3",
        "step_retry work 4",
        "step_failed work 4",
    ]
    assert result_of(events) == "Step 'work' failed after 4 attempts: ValueError: no 4"
    assert len(calls) == 4
    begins = events[2].step_retry.start_time.ToNanoseconds()
    assert calls[1] >= begins


async def test_times_that_passed_while_no_process_ran_come_once_and_at_once(
    store: SqliteStore,
) -> None:
    clock = SetClock()
    at = datetime.fromtimestamp(clock.now() / SECOND, UTC) + timedelta(hours=2)

    @workflow(id="passed")
    async def function(ctx: WorkflowContext) -> str:
        await asyncio.gather(ctx.step.wait_for("for", hours=2), ctx.step.wait_until("until", at))
        await ctx.step.suspend("end")
        return "done"

    async with flowing(store, function, clock=clock, threshold=PATIENT) as flows:
        run_id = await flows.start(function)
        for key in ("for", "until"):
            await flows.holds(run_id, f"suspended {key}")
        await flows.stop()
        clock.shift = 3 * HOUR
        flows.begin()
        await flows.holds(run_id, "suspended end")
        await flows.restart()
        await flows.answer(run_id, "end")
        events = await flows.ended(run_id)
    assert sorted(kinds(events)[3:5]) == ["resumed for due", "resumed until due"]
    assert kinds(events)[5:] == ["suspended end", "resumed end answered", "workflow_finish"]


async def test_a_clock_that_is_set_back_ends_no_wait_early_and_forgets_none(
    store: SqliteStore,
) -> None:
    clock = SetClock()

    @workflow(id="set-back")
    async def function(ctx: WorkflowContext) -> Any:
        await ctx.step.wait_for("nap", minutes=30)
        return "done"

    async with flowing(store, function, clock=clock, threshold=PATIENT) as flows:
        run_id = await flows.start(function)
        await flows.holds(run_id, "suspended nap")
        clock.shift = -HOUR
        await flows.restart()
        await asyncio.sleep(0.01)
        clock.shift = 0
        await asyncio.sleep(0.01)
        assert kinds(await flows.events(run_id))[1:] == ["suspended nap"]
        clock.shift = HOUR
        events = await flows.ended(run_id)
    assert kinds(events)[1:] == ["suspended nap", "resumed nap due", "workflow_finish"]


async def test_the_loser_of_a_race_takes_no_answer_and_holds_nothing_open(
    store: SqliteStore,
) -> None:
    @workflow(id="loses")
    async def function(ctx: WorkflowContext) -> str:
        loser = asyncio.create_task(ctx.step.suspend("ask"))
        await ctx.step.run("winner", lambda: 1)
        loser.cancel()
        await asyncio.wait([loser])
        await ctx.step.suspend("end")
        return "cancelled" if loser.cancelled() else "answered"

    async with flowing(store, function, threshold=0.02) as flows:
        run_id = await flows.start(function)
        await flows.parked(run_id)
        open_waits = await store.open_waits("default", run_id)
        assert len(open_waits) == 1
        await flows.answer(run_id, "ask")
        await flows.answer(run_id, "end")
        events = await flows.ended(run_id)
    assert result_of(events) == "cancelled"
    assert [one for one in kinds(events) if one.startswith("resumed")] == [
        "resumed ask cancelled",
        "resumed end answered",
    ]


@pytest.mark.parametrize("what", ["beginning", "end"])
async def test_a_run_is_not_parked_while_a_wait_is_being_stored(tmp_path: Path, what: str) -> None:
    """Nobody would wake it for that wait."""
    held = await HeldStore.open(tmp_path / "runs.db")
    held.allow_all()
    go = asyncio.Event()

    @workflow(id="stalls")
    async def function(ctx: WorkflowContext) -> str:
        other = asyncio.create_task(ctx.step.suspend("other"))
        if what == "end":
            await ctx.step.suspend("ask")
        else:
            await ctx.step.run("work", go.wait)
            await ctx.step.wait_for("nap", seconds=0.001)
        other.cancel()
        return "done"

    async with flowing(held, function, threshold=0.02) as flows:
        run_id = await flows.start(function)
        await flows.holds(run_id, "suspended ask" if what == "end" else "step_start work 1")
        if what == "end":
            await flows.parked(run_id)
        held.hold()
        asked = len(held.asked)
        if what == "end":
            await flows.answer(run_id, "ask")
        else:
            held.allow(1)  # the end of the step
            asked += 1
        go.set()
        await until(lambda: len(held.asked) > asked)
        await asyncio.sleep(0.1)  # longer than it takes to be parked
        held.allow_all()
        events = await flows.ended(run_id)
    await held.close()
    assert kinds(events)[-1] == "workflow_finish"


async def test_twenty_parallel_steps_survive_ten_processes(store: SqliteStore) -> None:
    """Each process begins them in another order, as from a set, and two more may end in it."""
    ended: list[str] = []
    go = [asyncio.Event() for _ in range(10)]

    @workflow(id="many")
    async def function(ctx: WorkflowContext) -> list[str]:
        async def work(number: int) -> str:
            await go[number // 2].wait()
            await asyncio.sleep(random.random() / 1000)
            ended.append(f"step-{number}")
            return ended[-1]

        numbers = random.sample(range(20), 20)
        calls = [ctx.step.run(f"step-{number}", work, number) for number in numbers]
        return sorted(await asyncio.gather(*calls))

    async with flowing(store, function) as flows:
        run_id = await flows.start(function)
        for number, one in enumerate(go):
            one.set()
            for key in (2 * number, 2 * number + 1):
                await flows.holds(run_id, f"step_finish step-{key} {number + 1}")
            await flows.restart()
        events = await flows.ended(run_id)
    assert result_of(events) == sorted(f"step-{number}" for number in range(20))
    assert sorted(ended) == result_of(events)
    assert sum(one.startswith("step_finish") for one in kinds(events)) == 20
