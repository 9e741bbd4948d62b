"""Child runs: they write into their root's log, and each has steps of its own."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from polos.v1.error_pb2 import FailureReason
from polos.v1.event_pb2 import AgentFinish, AgentStart, Event, WorkflowStart
from polos_service.errors import Nondeterministic, StepError
from polos_service.reading.subtree import Subtree
from polos_service.runs.attempt import Attempt, StepOutput
from polos_service.runs.context import RunContext
from polos_service.runs.retries import Backoff
from polos_service.store import Claim
from polos_service.store.sqlite import SqliteStore
from tests.support.runs import FakeClock, context, done, kinds, text
from tests.support.stores import (
    HeldStore,
    claimed,
    events_of,
    history,
    settled,
    soon,
    until,
)

ChildCode = Callable[[RunContext], Awaitable[None]]


async def reclaimed(store: SqliteStore, claim: Claim) -> Claim:
    await store.release(claim)
    again = await store.claim_run(claim.project, claim.run_id)
    assert again is not None
    return again


async def delegate(
    ctx: RunContext, key: str, code: ChildCode, *, workflow: str = "sub", tries: int = 1
) -> StepOutput:
    """Run a child in a step, as a call of a sub-agent will."""

    async def body(attempt: Attempt) -> StepOutput:
        child = await ctx.children.begin(attempt, workflow, AgentStart(agent_id=workflow))
        await code(child)
        await child.finish(AgentFinish(result="told", total_steps=child.totals.steps))
        return StepOutput(result_json='"told"')

    return await ctx.step(key, "agent", body, retries=Backoff(tries), resumes=True)


async def talk(child: RunContext) -> None:
    """Say something in a model call, and call a tool, under keys that the root has as well."""

    async def say(attempt: Attempt) -> StepOutput:
        await attempt.emit(text("Hello", attempt))
        return StepOutput(result_json='"Hello"', private={"thought": child.run_id})

    await child.step("llm:1", "llm", say)
    await child.step("tool", "tool", done)


def of_run(events: list[Event], run_id: str) -> list[str]:
    return kinds([one for one in events if one.run_id == run_id])


async def test_a_child_writes_into_its_root_s_log_under_its_own_name(store: SqliteStore) -> None:
    claim = await claimed(store)
    async with context(store, claim) as ctx:
        await ctx.step("tool", "tool", done)
        await soon(delegate(ctx, "ask", talk))
    events = await events_of(store, claim.run_id)
    assert [one.sequence for one in events] == list(range(1, len(events) + 1))
    child = f"{claim.run_id}:4"
    assert events[3].run_id == child, "its id has the sequence of its first event"
    assert of_run(events, child) == [
        "agent_start",
        "step_start llm:1/1",
        "text_delta llm:1/1",
        "step_finish llm:1/1",
        "step_start tool/1",
        "step_finish tool/1",
        "agent_finish",
    ]
    for event in events:
        told = (event.parent_run_id, event.parent_step_key, event.parent_attempt)
        if event.run_id == child:
            assert event.workflow_id == "sub"
            assert told == (claim.run_id, "ask", 1)
        else:
            assert event.workflow_id == "agent"
            assert not event.HasField("parent_run_id")
            assert not event.HasField("parent_step_key")
            assert not event.HasField("parent_attempt")
        assert not event.terminal


@pytest.fixture
async def held(tmp_path: Path) -> AsyncIterator[HeldStore]:
    opened = await HeldStore.open(tmp_path / "held.db")
    yield opened
    await opened.close()


async def test_a_child_s_code_begins_when_its_first_event_is_durable(held: HeldStore) -> None:
    claim = await claimed(held)
    begun: list[str] = []

    async def code(child: RunContext) -> None:
        begun.append(child.run_id)

    async with context(held, claim) as ctx:
        run = asyncio.ensure_future(delegate(ctx, "ask", code))
        await until(lambda: len(held.asked) == 1)
        await settled()
        assert begun == []
        held.allow_all()
        await soon(run)
    assert begun == [f"{claim.run_id}:2"]


async def test_children_of_children_name_their_own_parents(store: SqliteStore) -> None:
    claim = await claimed(store)

    async def middle(child: RunContext) -> None:
        await delegate(child, "ask", talk, workflow="leaf")

    async with context(store, claim) as ctx:
        await soon(delegate(ctx, "ask", middle))
    events = await events_of(store, claim.run_id)
    starts = [one for one in events if one.HasField("agent_start")]
    assert [one.run_id for one in starts] == [f"{claim.run_id}:2", f"{claim.run_id}:4"]
    assert starts[1].parent_run_id == starts[0].run_id
    assert starts[1].parent_step_key == "ask"


async def test_parallel_children_keep_their_steps_apart(store: SqliteStore) -> None:
    claim = await claimed(store)
    async with context(store, claim) as ctx:
        await soon(asyncio.gather(*(delegate(ctx, f"ask:{n}", talk) for n in range(20))))
    events = await events_of(store, claim.run_id)
    starts = {one.run_id: one for one in events if one.HasField("agent_start")}
    assert {one.parent_step_key for one in starts.values()} == {f"ask:{n}" for n in range(20)}
    for run_id, start in starts.items():
        assert run_id == f"{claim.run_id}:{start.sequence}"
        assert len(of_run(events, run_id)) == 7


async def test_after_a_crash_a_child_goes_on_from_its_last_finished_step(
    store: SqliteStore,
) -> None:
    claim = await claimed(store)
    ran: list[str] = []
    seen: list[str] = []

    def code(*, crashes: bool) -> ChildCode:
        async def run(child: RunContext) -> None:
            async def first(_attempt: Attempt) -> StepOutput:
                ran.append("first")
                return StepOutput(result_json="1", private={"secret": child.run_id})

            async def second(attempt: Attempt) -> StepOutput:
                await attempt.checkpoint()  # what is not durable is not there after a crash
                ran.append("second")
                if crashes:
                    await asyncio.Event().wait()
                return StepOutput(result_json="2")

            output = await child.step("first", "tool", first)
            seen.append(output.private["secret"])
            await child.step("second", "tool", second)

        return run

    async with context(store, claim) as ctx:
        run = asyncio.ensure_future(delegate(ctx, "ask", code(crashes=True)))
        await until(lambda: ran == ["first", "second"])
        run.cancel()
    async with context(store, await reclaimed(store, claim)) as ctx:
        await soon(delegate(ctx, "ask", code(crashes=False)))
    assert ran == ["first", "second", "second"]
    child = f"{claim.run_id}:2"
    assert seen == [child, child]
    events = await events_of(store, claim.run_id)
    assert of_run(events, claim.run_id) == ["step_start ask/1", "step_finish ask/1"]
    assert of_run(events, child) == [
        "agent_start",
        "step_start first/1",
        "step_finish first/1",
        "step_start second/1",
        "step_retry second/2",
        "step_finish second/2",
        "agent_finish",
    ]


async def test_a_child_that_has_ended_ends_once(store: SqliteStore) -> None:
    claim = await claimed(store)

    async def cut(ctx: RunContext) -> None:
        async def body(attempt: Attempt) -> StepOutput:
            child = await ctx.children.begin(attempt, "sub", AgentStart())
            await talk(child)
            await child.finish(AgentFinish())
            raise asyncio.CancelledError

        with pytest.raises(asyncio.CancelledError):
            await ctx.step("ask", "agent", body, resumes=True)

    async with context(store, claim) as ctx:
        await soon(cut(ctx))
    async with context(store, await reclaimed(store, claim)) as ctx:
        await soon(delegate(ctx, "ask", talk))
        assert ctx.totals.steps == 0, "a child's model calls are its own"
    events = await events_of(store, claim.run_id)
    assert kinds(events).count("agent_finish") == 1
    assert kinds(events)[-1] == "step_finish ask/1"


async def test_a_retry_of_the_step_begins_a_child_anew(store: SqliteStore) -> None:
    """What was begun under the attempt before is void: none of it is used again."""
    claim = await claimed(store)
    ran: list[tuple[str, int]] = []

    async def code(child: RunContext) -> None:
        async def nested(attempt: Attempt) -> StepOutput:
            ran.append((child.run_id, attempt.number))
            return StepOutput(result_json="1")

        await child.step("nested", "tool", nested)
        await delegate(child, "deeper", talk, workflow="leaf")
        if len(ran) == 1:
            raise StepError(FailureReason.FAILURE_REASON_MODEL_UNAVAILABLE, "busy", retryable=True)

    async with context(store, claim, FakeClock()) as ctx:
        await soon(delegate(ctx, "ask", code, tries=2))
    events = await events_of(store, claim.run_id)
    starts = [one for one in events if one.HasField("agent_start")]
    first, second = (one.run_id for one in starts if one.workflow_id == "sub")
    assert ran == [(first, 1), (second, 1)]
    assert of_run(events, claim.run_id) == [
        "step_start ask/1",
        "step_retry ask/2",
        "step_finish ask/2",
    ]
    attempts = {one.run_id: one.parent_attempt for one in events if one.HasField("parent_run_id")}
    assert (attempts[first], attempts[second]) == (1, 2)
    # The next claim finds the child of the attempt that stands.
    async with context(store, await reclaimed(store, claim)) as ctx:
        await soon(delegate(ctx, "ask", code, tries=2))
    assert len(ran) == 2


async def test_a_child_ends_before_its_step_starts_over(store: SqliteStore) -> None:
    """Who reads the child alone, or the one below it, gets to an end."""
    claim = await claimed(store)
    begun: list[str] = []

    async def left_open(attempt: Attempt) -> StepOutput:
        child = await ctx.children.begin(attempt, "sub", AgentStart())
        begun.append(child.run_id)

        async def below(attempt: Attempt) -> StepOutput:
            begun.append((await child.children.begin(attempt, "leaf", AgentStart())).run_id)
            raise asyncio.CancelledError

        return await child.step("below", "agent", below, resumes=True)

    async with context(store, claim) as ctx:
        with pytest.raises(asyncio.CancelledError):
            await soon(ctx.step("ask", "tool", left_open))
    claim = await reclaimed(store, claim)
    async with context(store, claim) as ctx:
        await soon(ctx.step("ask", "tool", done))
    events = await events_of(store, claim.run_id)
    assert kinds(events) == [
        "step_start ask/1",
        "agent_start",
        "step_start below/1",
        "agent_start",
        "run_cancelled",
        "step_finish below/1",
        "run_cancelled",
        "step_retry ask/2",
        "step_finish ask/2",
    ]
    for run_id in begun:
        found = await whole(store, claim, run_id)
        assert found[-1].run_id == run_id
        assert found[-1].HasField("run_cancelled")
        assert found[-1].terminal


async def whole(store: SqliteStore, claim: Claim, run_id: str) -> list[Event]:
    """Return the stream of a child, up to its end."""
    subtree = Subtree(run_id)
    found: list[Event] = []
    while not subtree.ended:
        part = await store.read(claim.project, claim.run_id, subtree.after, 1 << 20)
        assert part.frames, "the child has no end"
        found += subtree.take(part, 1 << 20)
    return found


async def test_after_a_crash_in_a_second_attempt_its_own_child_goes_on(store: SqliteStore) -> None:
    claim = await claimed(store)
    tried: list[str] = []

    async def code(child: RunContext) -> None:
        tried.append(child.run_id)
        await child.step("nested", "tool", done)
        if len(tried) == 1:
            raise StepError(FailureReason.FAILURE_REASON_MODEL_UNAVAILABLE, "busy", retryable=True)
        if len(tried) == 2:
            raise asyncio.CancelledError

    async with context(store, claim, FakeClock()) as ctx:
        with pytest.raises(asyncio.CancelledError):
            await soon(delegate(ctx, "ask", code, tries=2))
    async with context(store, await reclaimed(store, claim)) as ctx:
        await soon(delegate(ctx, "ask", code))
    assert tried[1] == tried[2] != tried[0]
    assert of_run(await events_of(store, claim.run_id), tried[2]) == [
        "agent_start",
        "step_start nested/1",
        "step_finish nested/1",
        "agent_finish",
    ]


async def test_an_attempt_begins_one_child(store: SqliteStore) -> None:
    claim = await claimed(store)
    async with context(store, claim) as ctx:

        async def body(attempt: Attempt) -> StepOutput:
            await ctx.children.begin(attempt, "sub", AgentStart())
            with pytest.raises(ValueError, match="has a child already"):
                await ctx.children.begin(attempt, "sub", AgentStart())
            return StepOutput(result_json="1")

        await soon(ctx.step("ask", "agent", body, resumes=True))


async def test_a_child_of_another_runnable_is_nondeterministic(store: SqliteStore) -> None:
    claim = await claimed(store)

    async def cut(_child: RunContext) -> None:
        raise asyncio.CancelledError

    async with context(store, claim) as ctx:
        with pytest.raises(asyncio.CancelledError):
            await soon(delegate(ctx, "ask", cut, workflow="before"))
    async with context(store, await reclaimed(store, claim)) as ctx:
        with pytest.raises(Nondeterministic) as raised:
            await soon(delegate(ctx, "ask", talk, workflow="after"))
    told = raised.value.details
    assert (told["step_key"], told["recorded"], told["asked"]) == ("ask", "before", "after")


async def test_a_child_s_private_state_is_stored_beside_its_own_steps(store: SqliteStore) -> None:
    claim = await claimed(store)
    async with context(store, claim) as ctx:
        await soon(delegate(ctx, "ask", talk))
    private = b"".join(one.private for one in await history(store, claim))
    assert b'{"run":"' + f"{claim.run_id}:2".encode() in private
    assert "thought" not in str(await events_of(store, claim.run_id))


async def test_the_first_event_of_a_child_is_not_repeated_by_its_code(store: SqliteStore) -> None:
    claim = await claimed(store)

    async def code(child: RunContext) -> None:
        child.start(WorkflowStart())
        await child.step("nested", "tool", done)

    async with context(store, claim) as ctx:
        await soon(delegate(ctx, "ask", code))
    events = await events_of(store, claim.run_id)
    assert "workflow_start" not in kinds(events)


async def test_a_child_is_as_old_as_its_first_event_says_after_a_crash_too(
    store: SqliteStore,
) -> None:
    claim, clock = await claimed(store), FakeClock()
    ages: list[float] = []

    async def cut(child: RunContext) -> None:
        await clock.sleep(2)
        ages.append(child.age().ToTimedelta().total_seconds())
        if len(ages) == 1:
            raise asyncio.CancelledError

    async with context(store, claim, clock) as ctx:
        with pytest.raises(asyncio.CancelledError):
            await soon(delegate(ctx, "ask", cut))
    async with context(store, await reclaimed(store, claim), clock) as ctx:
        await soon(delegate(ctx, "ask", cut))
    assert ages == [2, 4]
