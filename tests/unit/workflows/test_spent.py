"""What a tree of runs adds up to: what stands, and what was spent, also after a crash."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from polos.v1.event_pb2 import Event, Usage
from polos_client.define.agent import Agent
from polos_client.define.context import WorkflowContext
from polos_client.define.scripted import call, fail, pause, turn, usage
from polos_client.define.tool import tool
from polos_client.define.workflow import workflow
from polos_client.errors import StepExecutionError
from polos_client.fold import Voids
from polos_service.agents.runnable import AgentRunnable
from polos_service.models.providers import Providers
from polos_service.models.scripted import Scripted
from polos_service.runs import retries
from polos_service.runs.journal import ENDS
from polos_service.store.sqlite import SqliteStore
from tests.support.flows import Flows, flowing, kinds
from tests.support.runs import SetClock
from tests.support.service import scripted, until

HOUR = 3_600_000_000_000


class Gate:
    """What the tools of a test wait for, and what they have done."""

    def __init__(self) -> None:
        self.noted = 0
        self.hangs = False
        self.go_on = asyncio.Event()


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retries, "BACKOFF_BASE", 0.001)


@pytest.fixture
def gate() -> Gate:
    return Gate()


def spends(tokens: int) -> Any:
    return usage(output_tokens=tokens)


def load(flows: Flows, *agents: Agent) -> None:
    for one in agents:
        flows.add(AgentRunnable(one, Providers({"scripted": lambda _: Scripted()}), flows.means))


def end_of(events: list[Event]) -> Any:
    """Return the payload of the last event."""
    return getattr(events[-1], events[-1].WhichOneof("payload") or "")


def total(events: list[Event], run_id: str) -> tuple[int, int]:
    """Add up usage and spent of a run from its log alone: an oracle."""
    voids = Voids()
    for one in events:
        voids.add(one)
    tree = {run_id}
    stands = spent = 0
    for one in events:
        if one.parent_run_id in tree:
            tree.add(one.run_id)
        if one.run_id not in tree:
            continue
        spent += one.step_retry.usage.total_tokens + one.step_finish.usage.total_tokens
        if not one.step_finish.HasField("failure") and not voids.void(one.run_id):
            stands += one.step_finish.usage.total_tokens
    return stands, spent


def told(events: list[Event]) -> tuple[int, int]:
    """Return usage and spent as the last event tells them, once the log agrees."""
    end = end_of(events)
    found = end.usage.total_tokens, end.spent.total_tokens
    assert found == total(events, events[0].run_id)
    return found


def agents(gate: Gate) -> dict[str, Agent]:
    """Return agents that spend tokens and end in various ways."""

    @tool
    async def note() -> str:
        """Note, and wait if the test says so."""
        gate.noted += 1
        if gate.hangs:
            gate.hangs = False
            await asyncio.Event().wait()
        return "noted"

    first = turn(call("note"), spends(10))
    again = turn(spends(7), fail(), retried=["ok", spends(20)])
    broken = turn(fail("model_bad_request", retryable=False))
    paid = turn(spends(3), fail("model_malformed", retryable=False))
    cut = turn(pause(None), retried=["ok", spends(5)])
    plays = {
        "ends": (first, turn("ok", spends(5))),
        "fails": (first, broken),
        "fails-paid": (first, paid),
        "retried": (first, again),
        "cut": (first, cut),
    }
    return {one: scripted(*turns, id=one, tools=(note,)) for one, turns in plays.items()}


Course = Callable[[WorkflowContext, Gate, dict[str, Agent]], Awaitable[None]]
"""What a workflow does with agents."""


def asks(*ids: str) -> Course:
    """Run agents one after the other."""

    async def course(ctx: WorkflowContext, gate: Gate, known: dict[str, Agent]) -> None:
        for one in ids:
            try:
                await ctx.step.agent_invoke_and_wait(one, known[one].with_input("Go."))
            except StepExecutionError:
                assert one.startswith("fails")

    return course


async def gives_up(ctx: WorkflowContext, gate: Gate, known: dict[str, Agent]) -> None:
    """Cancel an agent while its tool works."""
    gate.hangs = not gate.noted
    asking = ctx.step.agent_invoke_and_wait("ask", known["ends"].with_input("Go."))
    task = asyncio.create_task(asking)
    await until(lambda: gate.noted > 0, "the tool")
    task.cancel()
    await asyncio.wait({task})


async def nested(ctx: WorkflowContext, gate: Gate, known: dict[str, Agent]) -> None:
    await ctx.step.invoke_and_wait("middle", "middle", {"ids": ["ends", "fails-paid"]})
    await asks("retried")(ctx, gate, known)


COURSES: dict[str, tuple[Course, int, int]] = {
    "ends": (asks("ends"), 15, 15),
    "fails": (asks("fails"), 10, 10),
    "fails with tokens": (asks("fails-paid"), 10, 13),
    "cancelled": (gives_up, 10, 10),
    "retried": (asks("retried"), 30, 37),
    "nested": (nested, 15 + 10 + 30, 15 + 13 + 37),
}


@pytest.mark.parametrize("name", COURSES)
@pytest.mark.parametrize("crash", [False, True], ids=["in one go", "after a crash"])
async def test_each_call_counts_once(
    store: SqliteStore, gate: Gate, name: str, *, crash: bool
) -> None:
    course, stands, spent = COURSES[name]
    known = agents(gate)

    @workflow(id="middle")
    async def middle(ctx: WorkflowContext, payload: dict[str, Any]) -> None:
        await asks(*payload["ids"])(ctx, gate, known)

    @workflow(id="root")
    async def root(ctx: WorkflowContext) -> None:
        await course(ctx, gate, known)
        await ctx.step.run("hold", gate.go_on.wait)

    async with flowing(store, root, middle) as flows:
        load(flows, *known.values())
        run_id = await flows.start(root)
        if crash:
            await flows.holds(run_id, "step_start hold 1")
            await flows.restart()
        gate.go_on.set()
        events = await flows.ended(run_id)
    assert told(events) == (stands, spent)
    ends = [one for one in events if one.HasField("agent_finish") or one.HasField("error")]
    for one in ends:
        end = end_of([one])
        assert (end.usage.total_tokens, end.spent.total_tokens) == total(events, one.run_id)


@pytest.mark.parametrize("void", [False, True], ids=["stands", "void"])
async def test_a_crash_before_a_step_of_a_child_ends_leaves_its_own_child_in_its_sums(
    store: SqliteStore, gate: Gate, *, void: bool
) -> None:
    known, gate.hangs = agents(gate), True

    @workflow(id="middle")
    async def middle(ctx: WorkflowContext) -> None:
        await asks("ends")(ctx, gate, known)

    @workflow(id="root")
    async def root(ctx: WorkflowContext) -> None:
        asking = asyncio.create_task(ctx.step.invoke_and_wait("middle", "middle", {}))
        if void and not ctx.retry_count:
            await ctx.step.run("hold", gate.go_on.wait)
            asking.cancel()
            await asyncio.wait({asking})
            raise RuntimeError("once more")
        await asking

    async with flowing(store, root, middle) as flows:
        load(flows, *known.values())
        run_id = await flows.start(root)
        await until(lambda: gate.noted == 1, "the tool")
        gate.hangs = void
        await flows.restart()
        if void:
            await until(lambda: gate.noted == 2, "the tool once more")
        gate.go_on.set()
        events = await flows.ended(run_id)
    assert told(events) == ((15, 25) if void else (15, 15))
    tree = [one for one in events if kinds([one])[0] in ENDS]
    assert len(tree) == (5 if void else 3)
    for one in tree:
        end = end_of([one])
        before = events[: one.sequence]
        assert (end.usage.total_tokens, end.spent.total_tokens) == total(before, one.run_id)


async def test_a_call_that_a_crash_cuts_off_counts_when_it_is_made_again(
    store: SqliteStore, gate: Gate
) -> None:
    known = agents(gate)

    @workflow(id="root")
    async def root(ctx: WorkflowContext) -> None:
        await asks("cut")(ctx, gate, known)

    async with flowing(store, root) as flows:
        load(flows, *known.values())
        run_id = await flows.start(root)
        await flows.holds(run_id, "step_start llm:2 1")
        await flows.restart()
        assert told(await flows.ended(run_id)) == (15, 15)


@pytest.mark.parametrize("asked_again", [True, False])
async def test_what_was_given_up_before_the_code_started_over_is_spent(
    store: SqliteStore, gate: Gate, *, asked_again: bool
) -> None:
    known = agents(gate)

    @workflow(id="root")
    async def root(ctx: WorkflowContext) -> None:
        if not ctx.retry_count:
            await gives_up(ctx, gate, known)
            raise RuntimeError("once more")
        if asked_again:
            await ctx.step.agent_invoke_and_wait("ask", known["ends"].with_input("Go."))

    async with flowing(store, root) as flows:
        load(flows, *known.values())
        events = await flows.run(root)
    # Only a further attempt voids the one before.
    assert told(events) == ((15, 25) if asked_again else (10, 10))


async def test_a_cancel_while_no_process_works_tells_what_was_used(
    store: SqliteStore, gate: Gate
) -> None:
    known = agents(gate)

    @workflow(id="root")
    async def root(ctx: WorkflowContext) -> None:
        await asks("retried")(ctx, gate, known)
        await ctx.step.suspend("stay")

    async with flowing(store, root) as flows:
        load(flows, *known.values())
        run_id = await flows.start(root)
        await flows.holds(run_id, "suspended stay")
        await flows.stop()
        await flows.cancel(run_id)
        flows.begin()
        events = await flows.ended(run_id)
    assert kinds(events)[-1] == "run_cancelled"
    stands, spent = told(events)
    assert stands >= 30
    assert spent == stands + 7


async def test_a_child_whose_time_is_over_while_no_process_works_tells_what_it_used(
    store: SqliteStore, gate: Gate
) -> None:
    known, gate.hangs = agents(gate), True
    clock = SetClock()

    @workflow(id="root")
    async def root(ctx: WorkflowContext) -> str:
        config = known["ends"].with_input("Go.", run_timeout_seconds=600.0)
        with pytest.raises(StepExecutionError, match="timeout"):
            await ctx.step.agent_invoke_and_wait("ask", config)
        return "late"

    async with flowing(store, root, clock=clock) as flows:
        load(flows, *known.values())
        run_id = await flows.start(root)
        await flows.holds(run_id, "step_start note 1")
        await flows.stop()
        clock.shift += HOUR
        flows.begin()
        events = await flows.ended(run_id)
    (error,) = (one.error for one in events if one.HasField("error"))
    assert error.usage == Usage(output_tokens=10, input_tokens=0, total_tokens=10)
    assert told(events) == (10, 10)
