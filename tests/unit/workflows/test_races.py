"""Results come to the code in the log's order, whatever takes its time on the way."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.message import Message
from structlog.testing import capture_logs

from polos.v1.event_pb2 import Cost, Event, Resumed, StepFinish, Suspended, Usage, WaitKind
from polos_client.define.context import WorkflowContext
from polos_client.define.workflow import Workflow, workflow
from polos_client.errors import StepExecutionError
from polos_service.runs.attempt import Attempt, StepOutput
from polos_service.runs.clock import SystemClock
from polos_service.runs.context import RunContext
from polos_service.runs.journals import Journals
from polos_service.runs.totals import MODEL_CALL
from polos_service.runs.waiting import Waiting
from polos_service.runs.writer import Writer
from polos_service.sidethread import SMALL
from polos_service.store.sqlite import SqliteStore
from polos_service.tools.local import apart
from polos_service.workflows import functions
from tests.support.flows import Flows, flowing, kinds
from tests.support.runs import SetClock, done, go_on
from tests.support.stores import HeldStore, claimed, settled, until

HOUR = 3_600_000_000_000

PATIENT = 1e6
"""Seconds before a run is parked: more than the clock is set forward."""


@pytest.fixture
async def held(tmp_path: Path) -> AsyncIterator[HeldStore]:
    """Give a store whose appends pass until the test holds them."""
    store = await HeldStore.open(tmp_path / "runs.db")
    store.allow_all()
    yield store
    store.allow_all()
    await store.close()


@pytest.fixture
def emitted(monkeypatch: pytest.MonkeyPatch) -> list[Message]:
    """Give the payloads that were emitted, durable or not."""
    found: list[Message] = []
    emit = Writer.emit

    def noting(writer: Writer, payload: Message, *args: Any, **options: Any) -> None:
        emit(writer, payload, *args, **options)
        found.append(payload)

    monkeypatch.setattr(Writer, "emit", noting)
    return found


def keys(payloads: list[Message], *types: type[Message]) -> list[str]:
    """Return the keys of the steps and waits that have begun or ended so."""
    return [one.step_key for one in payloads if isinstance(one, types)]  # type: ignore[attr-defined]


def ends(events: list[Event]) -> list[str]:
    """Return the keys of steps and waits in the order of their ends in the log."""
    payloads = [getattr(one, one.WhichOneof("payload") or "") for one in events]
    return keys(payloads, StepFinish, Resumed)


async def again(flows: Flows, run_id: str) -> list[Event]:
    """Let a run that waits for `end` go on in another process, and end."""
    await flows.holds(run_id, "suspended end")
    await flows.restart()
    await flows.answer(run_id, "end")
    return await flows.ended(run_id)


RACERS = ["step", "timer", "suspend", "event", "fails", "timeout"]


@pytest.mark.parametrize("first", range(len(RACERS)))
async def test_what_ends_while_nothing_is_stored_comes_in_the_order_of_the_log(  # noqa: C901
    held: HeldStore, emitted: list[Message], first: int
) -> None:
    """Each kind of racer ends before each other kind in one of the cases."""
    clock = SetClock()
    go = {key: asyncio.Event() for key in RACERS}
    passes: list[tuple[list[str], list[list[str]]]] = []

    @workflow(id="racing")
    async def function(ctx: WorkflowContext) -> None:
        async def fail() -> None:
            await go["fails"].wait()
            raise ValueError("no")

        async def publish() -> None:
            await go["event"].wait()
            await ctx.step.publish_workflow_event("event", {})

        racers: dict[str, Callable[[], Any]] = {
            "step": lambda: ctx.step.run("step", go["step"].wait),
            "timer": lambda: ctx.step.wait_for("timer", hours=1),
            "suspend": lambda: ctx.step.suspend("suspend"),
            "event": publish,
            "fails": lambda: ctx.step.run("fails", fail, max_retries=0),
            "timeout": lambda: ctx.step.run(
                "timeout", asyncio.Event().wait, timeout=0.05, max_retries=0
            ),
        }
        order: list[str] = []
        rounds: list[list[str]] = []
        passes.append((order, rounds))

        async def race(key: str) -> str:
            with contextlib.suppress(StepExecutionError):
                await racers[key]()
            order.append(key)
            return key

        left = {asyncio.create_task(race(key)) for key in RACERS}
        while left:
            finished, left = await asyncio.wait(left, return_when=asyncio.FIRST_COMPLETED)
            rounds.append([one.result() for one in finished])
        await ctx.step.suspend("end")

    async with flowing(held, function, clock=clock, threshold=PATIENT) as flows:
        run_id = await flows.start(function)
        for key in RACERS:
            if key != "event":
                begun = "suspended" if key in {"timer", "suspend"} else "step_start"
                await flows.holds(run_id, f"{begun} {key}" + " 1" * (begun == "step_start"))
        held.hold()
        for key in RACERS[first:] + RACERS[:first]:
            go[key].set()
            if key == "timer":
                clock.shift = 2 * HOUR
            elif key == "suspend":
                await flows.answer(run_id, "suspend")
            await until(lambda key=key: key in keys(emitted, StepFinish, Resumed))  # type: ignore[misc]
        await settled()
        held.allow_all()
        events = await again(flows, run_id)
    log = ends(events)[: len(RACERS)]
    assert [one[0] for one in passes] == [log, log]
    assert [one[1] for one in passes] == [[[key] for key in log]] * 2


class SlowBudget:
    """A budget that counts only when it is told to."""

    def __init__(self) -> None:
        self.counts = asyncio.Event()

    async def require(self) -> None:
        """Permit every call."""

    async def count(self, usage: Usage, cost: Cost | None) -> None:
        """Wait until it is told to go on."""
        del usage, cost
        await self.counts.wait()


async def test_a_result_whose_cost_is_being_counted_keeps_back_those_behind_it(
    store: SqliteStore, emitted: list[Message]
) -> None:
    claim = await claimed(store)
    budget = SlowBudget()
    order: list[str] = []
    clock = SystemClock()
    journals = await Journals.load(claim.run_id, store.history(claim))
    writer = Writer(store, claim, clock)
    waiting = Waiting(store, claim, clock)
    ctx = RunContext.of_root(claim, journals, writer, clock, go_on, budget=budget, waiting=waiting)

    async def late(_: Attempt) -> StepOutput:
        await until(lambda: "call" in keys(emitted, StepFinish))
        return StepOutput(result_json="1")

    async def step(key: str, kind: str, body: Any) -> None:
        await ctx.step(key, kind, body)
        order.append(key)

    async def nap() -> None:
        await ctx.wait("nap", WaitKind.WAIT_KIND_TIMER, until=clock.now())
        order.append("nap")

    tasks = [
        asyncio.create_task(step("call", MODEL_CALL, done)),
        asyncio.create_task(step("work", "run", late)),
    ]
    await until(lambda: "call" in keys(emitted, StepFinish))
    tasks.append(asyncio.create_task(nap()))
    await until(lambda: {"work", "nap"} <= {*keys(emitted, StepFinish, Resumed)})
    await writer.flush()
    await settled()
    assert order == []
    budget.counts.set()
    await asyncio.gather(*tasks)
    writer.close()
    assert order == keys(emitted, StepFinish, Resumed)


async def test_a_long_result_that_is_being_decoded_keeps_back_those_behind_it(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    orders: list[list[str]] = []

    async def slowly(function: Callable[[], Any]) -> Any:
        await asyncio.sleep(0.02)
        return await apart(function)

    monkeypatch.setattr(functions, "apart", slowly)

    @workflow(id="long")
    async def function(ctx: WorkflowContext) -> None:
        order: list[str] = []
        orders.append(order)
        first = asyncio.Event()

        async def long() -> None:
            await ctx.step.run("long", lambda: "x" * (2 * SMALL))
            order.append("long")
            first.set()

        async def short() -> None:
            await ctx.step.run("short", first.wait)
            order.append("short")

        await asyncio.gather(long(), short())
        await ctx.step.suspend("end")

    async with flowing(store, function) as flows:
        await again(flows, await flows.start(function))
    assert orders == [["long", "short"]] * 2


@pytest.mark.parametrize("kind", ["step", "timer", "suspend"])
async def test_a_timeout_comes_too_late_for_what_is_in_the_log(
    held: HeldStore, emitted: list[Message], kind: str
) -> None:
    """It fires while the end of the step is being stored, and cuts off what is behind that."""
    clock = SetClock()
    go = asyncio.Event()
    limits: list[asyncio.Timeout] = []
    found: list[list[str]] = []

    @workflow(id="too-late")
    async def function(ctx: WorkflowContext) -> None:
        calls: dict[str, Callable[[], Any]] = {
            "step": lambda: ctx.step.run("ask", go.wait),
            "timer": lambda: ctx.step.wait_for("ask", hours=1),
            "suspend": lambda: ctx.step.suspend("ask"),
        }
        told: list[str] = []
        found.append(told)
        try:
            async with asyncio.timeout(None) as limit:
                limits.append(limit)
                await calls[kind]()
                told.append("ended")
        except TimeoutError:
            told.append("late")
        await ctx.step.suspend("end")

    async with flowing(held, function, clock=clock, threshold=PATIENT) as flows:
        run_id = await flows.start(function)
        await flows.holds(run_id, "step_start ask 1" if kind == "step" else "suspended ask")
        held.hold()
        go.set()
        clock.shift = 2 * HOUR
        if kind == "suspend":
            await flows.answer(run_id, "ask")
        await until(lambda: "ask" in keys(emitted, StepFinish, Resumed))
        await settled()
        limits[0].reschedule(asyncio.get_running_loop().time())
        await until(limits[0].expired)
        await settled()
        assert found == [[]]
        held.allow_all()
        await again(flows, run_id)
    assert found == [["ended"], ["ended"]]


async def test_a_task_that_was_cancelled_too_late_begins_no_further_step(
    held: HeldStore, emitted: list[Message]
) -> None:
    tasks: list[asyncio.Task[None]] = []
    cleaned: list[str] = []

    @workflow(id="cancelled-late")
    async def function(ctx: WorkflowContext) -> None:
        async def listen() -> None:
            try:
                for number in range(9):
                    await ctx.step.suspend(f"ask {number}")
            finally:
                cleaned.append("listener")

        tasks.append(asyncio.create_task(listen()))
        await asyncio.wait(tasks)
        await ctx.step.suspend("end")

    async with flowing(held, function) as flows:
        run_id = await flows.start(function)
        await flows.holds(run_id, "suspended ask 0")
        held.hold()
        await flows.answer(run_id, "ask 0")
        await until(lambda: "ask 0" in keys(emitted, Resumed))
        await settled()
        tasks[0].cancel()
        held.allow_all()
        await flows.holds(run_id, "suspended end")
    assert tasks[0].cancelled()
    assert cleaned == ["listener"]
    assert keys(emitted, Suspended) == ["ask 0", "end"]


async def test_what_ended_after_a_timeout_waits_for_the_timeout_when_the_run_goes_on(
    store: SqliteStore,
) -> None:
    winners: list[str] = []

    @workflow(id="timeout-first")
    async def function(ctx: WorkflowContext) -> None:
        async def impatient() -> str:
            try:
                async with asyncio.timeout(0.1):
                    await ctx.step.suspend("a")
            except TimeoutError:
                return "timeout"
            return "a"

        async def patient() -> str:
            await ctx.step.suspend("b")
            return "b"

        tasks = [asyncio.create_task(one()) for one in (impatient, patient)]
        finished, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        winners.append("+".join(one.result() for one in finished))
        await ctx.step.run(f"after {winners[-1]}", lambda: 1)
        await tasks[1]
        await ctx.step.suspend("end")

    async with flowing(store, function) as flows:
        run_id = await flows.start(function)
        await flows.holds(run_id, "step_finish after timeout 1")
        await flows.answer(run_id, "b")
        events = await again(flows, run_id)
    assert winners == ["timeout", "timeout"]
    assert [one for one in kinds(events) if one.startswith("step_start")] == [
        "step_start after timeout 1"
    ]


async def test_a_run_is_not_parked_before_its_code_has_given_up_what_it_gave_up(
    store: SqliteStore,
) -> None:
    """Its timeout begins anew with each pass, so it would never be over."""
    go = asyncio.Event()
    found: list[str] = []

    @workflow(id="gives-up")
    async def function(ctx: WorkflowContext) -> str:
        asking = asyncio.create_task(ctx.step.suspend("other"))
        working = asyncio.create_task(ctx.step.run("work", go.wait))
        try:
            async with asyncio.timeout(0.1):
                await ctx.step.suspend("a")
        except TimeoutError:
            found.append("late")
            go.set()
        await working
        await ctx.step.suspend("end")
        asking.cancel()
        return "done"

    async with flowing(store, function, threshold=0.02) as flows:
        run_id = await flows.start(function)
        await flows.parked(run_id)
        await flows.answer(run_id, "end")
        assert kinds(await flows.ended(run_id))[-1] == "workflow_finish"
    assert found == ["late", "late"]


@pytest.mark.parametrize("form", ["task", "around", "timeout"])
async def test_what_the_code_has_cancelled_is_not_left_behind(
    store: SqliteStore, form: str
) -> None:
    async def slow() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0.01)

    @workflow(id="cancels")
    async def function(ctx: WorkflowContext) -> str:
        async def around() -> None:
            if form == "timeout":
                await asyncio.wait_for(ctx.step.run("loser", slow), 60)
            else:
                await asyncio.gather(ctx.step.run("loser", slow), ctx.step.suspend("ask"))

        call = ctx.step.run("loser", slow) if form == "task" else around()
        loser = asyncio.create_task(call)
        await ctx.step.run("winner", lambda: 1)
        loser.cancel()
        return "done"

    with capture_logs() as logs:
        async with flowing(store, function) as flows:
            events = await flows.run(function)
    assert "step_failed loser 1" in kinds(events)
    assert "steps_not_awaited" not in [one["event"] for one in logs]


def _timing(form: str, ctx: WorkflowContext) -> Any:
    async def timeout() -> None:
        async with asyncio.timeout(3600):
            await ctx.step.suspend("ask")

    async def wait() -> None:
        await asyncio.wait([asyncio.create_task(ctx.step.suspend("ask"))], timeout=3600)

    async def wait_for() -> None:
        await asyncio.wait_for(ctx.step.suspend("ask"), 3600)

    async def unbounded() -> None:
        async with asyncio.timeout(None):
            await asyncio.wait([asyncio.create_task(ctx.step.suspend("ask"))])

    return {"timeout": timeout, "wait": wait, "wait_for": wait_for, "unbounded": unbounded}[form]()


async def test_code_that_measures_time_while_its_run_is_parked_is_told_once(
    store: SqliteStore,
) -> None:
    def of(form: str) -> Workflow:
        @workflow(id=f"measures-{form}")
        async def function(ctx: WorkflowContext) -> None:
            await _timing(form, ctx)

        return function

    forms = ["timeout", "wait", "wait_for", "unbounded"]
    functions = [of(form) for form in forms]
    with capture_logs() as logs:
        async with flowing(store, *functions, threshold=0.02) as flows:
            for function in (*functions, functions[0]):
                run_id = await flows.start(function)
                await flows.parked(run_id)
    told = [(one["workflow"], one["call"]) for one in logs if one["event"] == "time_begins_anew"]
    assert told == [(f"measures-{form}", f"asyncio.{form}") for form in forms[:-1]]
