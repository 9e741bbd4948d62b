"""How children end: with their root, late, cancelled, or given up by the code."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from google.protobuf.message import Message

from polos.v1.error_pb2 import FailureReason
from polos.v1.run_pb2 import Wait
from polos_client.define.context import WorkflowContext
from polos_client.define.scripted import call, turn, usage
from polos_client.define.tool import tool
from polos_client.define.workflow import Workflow, workflow
from polos_client.errors import StepExecutionError
from polos_service.agents.runnable import AgentRunnable
from polos_service.models.providers import Providers
from polos_service.models.scripted import Scripted
from polos_service.store.sqlite import SqliteStore
from polos_service.workflows.runnable import WorkflowRunnable
from tests.support.flows import after_end, flowing, kinds, of_workflow, result_of, unended
from tests.support.service import scripted, until


async def test_the_end_of_the_root_ends_its_children_first(store: SqliteStore) -> None:
    opened = asyncio.Event()

    @workflow(id="inner")
    async def inner(ctx: WorkflowContext) -> None:
        opened.set()
        await ctx.step.suspend("ask", {})

    @workflow(id="middle")
    async def middle(ctx: WorkflowContext) -> None:
        await ctx.step.invoke_and_wait("inner", inner)

    @workflow(id="root")
    async def root(ctx: WorkflowContext) -> str:
        task = asyncio.create_task(ctx.step.invoke_and_wait("middle", middle))
        await opened.wait()
        del task
        return "left"

    async with flowing(store, root, middle, inner) as flows:
        run_id = await flows.start(root)
        events = await flows.ended(run_id)
    assert result_of(events) == "left"
    assert events[-1].terminal
    begun = [one.run_id for one in events if one.HasField("workflow_start")]
    ended = [one.run_id for one in events if one.HasField("run_cancelled")]
    assert sorted([*ended, run_id]) == sorted(begun)


async def test_a_cancelled_root_ends_its_children_first(store: SqliteStore) -> None:
    @workflow(id="inner")
    async def inner(ctx: WorkflowContext) -> None:
        await ctx.step.suspend("ask", {})

    @workflow(id="root")
    async def root(ctx: WorkflowContext) -> None:
        await asyncio.gather(
            ctx.step.invoke_and_wait("a", inner), ctx.step.invoke_and_wait("b", inner)
        )

    for restarts in (False, True):
        async with flowing(store, root, inner) as flows:
            run_id = await flows.start(root)
            await flows.holds(run_id, "suspended ask")
            if restarts:
                await flows.stop()
            await flows.cancel(run_id)
            if restarts:
                flows.begin()
            events = await flows.ended(run_id)
        cancelled = [one.run_id for one in events if one.HasField("run_cancelled")]
        begun = {one.run_id for one in events if one.HasField("workflow_start")}
        assert sorted(cancelled) == sorted(begun)
        assert cancelled[-1] == run_id
        assert [one.terminal for one in events if one.HasField("run_cancelled")][-1]


async def test_a_child_has_a_deadline_of_its_own(store: SqliteStore) -> None:
    @workflow(id="inner")
    async def inner(ctx: WorkflowContext) -> None:
        await ctx.step.suspend("ask", {})

    @workflow(id="root")
    async def root(ctx: WorkflowContext) -> str:
        try:
            await ctx.step.invoke_and_wait("inner", inner, run_timeout_seconds=0.05)
        except StepExecutionError as error:
            return str(error)
        return "no"

    async with flowing(store, root, inner) as flows:
        events = await flows.run(root)
    assert "timeout" in result_of(events)
    (ended,) = [one for one in of_workflow(events, "inner") if one.HasField("error")]
    assert ended.error.reason == FailureReason.FAILURE_REASON_RUN_TIMEOUT


async def test_the_deadline_of_a_child_wakes_its_root(store: SqliteStore) -> None:
    @workflow(id="inner")
    async def inner(ctx: WorkflowContext) -> None:
        await ctx.step.suspend("ask", {})

    @workflow(id="middle")
    async def middle(ctx: WorkflowContext) -> None:
        await ctx.step.invoke_and_wait("inner", inner, run_timeout_seconds=0.5)

    @workflow(id="root")
    async def root(ctx: WorkflowContext) -> str:
        try:
            await ctx.step.invoke_and_wait("middle", middle)
        except StepExecutionError as error:
            return str(error)
        return "no"

    async with flowing(store, root, middle, inner, threshold=0.01) as flows:
        run_id = await flows.start(root)
        await flows.parked(run_id)
        assert "timeout" in result_of(await flows.ended(run_id))


async def test_a_tool_that_ends_after_its_child_was_given_up_is_not_recorded(
    store: SqliteStore,
) -> None:
    started, release, returned = asyncio.Event(), asyncio.Event(), asyncio.Event()

    @tool
    async def stubborn() -> str:
        """Do not give in."""
        started.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            await release.wait()
        returned.set()
        return "late"

    agent = scripted(turn(call("stubborn")), "ok", id="agent", tools=(stubborn,))

    @workflow(id="root")
    async def root(ctx: WorkflowContext) -> str:
        asking = ctx.step.agent_invoke_and_wait("ask", agent.with_input("Go."))
        task = asyncio.create_task(asking)
        await started.wait()
        task.cancel()
        await ctx.step.run("meanwhile", release.set)
        await ctx.step.run("after", returned.wait)
        return "ended"

    async with flowing(store, root) as flows:
        flows.add(AgentRunnable(agent, Providers({"scripted": lambda _: Scripted()}), flows.means))
        events = await flows.run(root)
    assert result_of(events) == "ended"
    told = kinds(of_workflow(events, "agent"))
    assert told[-2:] == ["step_failed stubborn 1", "run_cancelled"]


@workflow(id="asks")
async def asks(ctx: WorkflowContext, payload: dict[str, Any]) -> Any:
    return (await ctx.step.suspend("ask", payload))["data"]


async def give_up(ctx: WorkflowContext, child: Workflow, payload: Any = None) -> None:
    """Begin a child, and give it up once somebody answers `enough`."""
    task = asyncio.create_task(ctx.step.invoke_and_wait("c", child, payload))
    await ctx.step.suspend("enough")
    task.cancel()
    await asyncio.wait({task})


@pytest.mark.parametrize("turns", [0, 1, 2, 5, 30])
async def test_a_child_that_is_given_up_ends_once_and_last(store: SqliteStore, turns: int) -> None:
    @workflow(id="leaf")
    async def leaf(ctx: WorkflowContext, payload: dict[str, Any]) -> None:
        ask = asyncio.create_task(ctx.step.suspend("ask", {}))
        await ctx.step.run("sleep", asyncio.sleep, 60)
        await ask

    @workflow(id="middle")
    async def middle(ctx: WorkflowContext) -> None:
        async with asyncio.TaskGroup() as group:
            for one in range(2):
                group.create_task(ctx.step.invoke_and_wait(f"l{one}", leaf, {}))

    @workflow(id="root")
    async def root(ctx: WorkflowContext) -> str:
        task = asyncio.create_task(ctx.step.invoke_and_wait("c", middle))
        for _ in range(turns):
            await asyncio.sleep(0)
        await ctx.step.run("pause", asyncio.sleep, 0 if turns < 5 else 0.05)
        task.cancel()
        await asyncio.wait({task})
        await ctx.step.run("after", lambda: None)
        return "ended"

    async with flowing(store, root, middle, leaf) as flows:
        events = await flows.run(root)
    assert result_of(events) == "ended"
    assert (after_end(events), unended(events)) == ([], set())


async def test_a_wait_that_a_child_leaves_is_told_before_its_end(store: SqliteStore) -> None:
    @workflow(id="leaves")
    async def leaves(ctx: WorkflowContext) -> int:
        asking = asyncio.create_task(ctx.step.suspend("ask", {}))
        await ctx.step.run("s", lambda: 1)
        asking.cancel()
        return 5

    @workflow(id="root")
    async def root(ctx: WorkflowContext) -> list[Any]:
        told: list[Any] = [await ctx.step.invoke_and_wait("a", leaves)]
        try:
            await ctx.step.invoke_and_wait("b", asks, {}, run_timeout_seconds=0.05)
        except StepExecutionError as error:
            told.append(str(error))
        return told

    async with flowing(store, root, leaves, asks) as flows:
        events = await flows.run(root)
    assert result_of(events)[0] == 5
    assert (after_end(events), unended(events)) == ([], set())


async def test_waits_that_an_ended_child_left_open_are_closed_by_the_next_claim(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As after a crash between the end of the child and what follows it."""

    @workflow(id="root")
    async def root(ctx: WorkflowContext) -> None:
        await give_up(ctx, asks, {})
        await ctx.step.suspend("after")

    async def is_open(run_id: str, *keys: str) -> bool:
        found = await store.open_waits("default", run_id)
        return [Wait.FromString(one.data).step_key for one in found] == [*keys]

    async def lost(*_: object) -> None:
        return None

    async with flowing(store, root, asks) as flows:
        run_id = await flows.start(root)
        await flows.holds(run_id, "suspended ask")
        with monkeypatch.context() as patch:
            patch.setattr(store, "close_wait", lost)
            await flows.answer(run_id, "enough")
            await flows.holds(run_id, "suspended after")
            assert await is_open(run_id, "enough", "ask", "after")
            await flows.stop()
        flows.begin()
        await until(lambda: is_open(run_id, "after"), "the waits that are over to be closed")
        await flows.answer(run_id, "after")
        events = await flows.ended(run_id)
    assert (after_end(events), unended(events)) == ([], set())


async def test_a_timer_given_up_before_a_start_anew_need_not_come_again(
    store: SqliteStore,
) -> None:
    @workflow(id="root")
    async def root(ctx: WorkflowContext) -> int:
        if ctx.retry_count == 0:
            timer = asyncio.create_task(ctx.step.wait_for("limit", seconds=50))
            await ctx.step.run("x", lambda: None)
            timer.cancel()
            await ctx.step.run("y", lambda: None)
            raise RuntimeError("again")
        return 1

    async with flowing(store, root) as flows:
        assert await flows.result(root) == 1


async def test_what_a_child_used_that_was_given_up_counts_after_a_crash_too(
    store: SqliteStore,
) -> None:
    agent = scripted(turn("Yes.", usage(input_tokens=5, output_tokens=2)), id="yes")

    @workflow(id="uses")
    async def uses(ctx: WorkflowContext) -> None:
        await ctx.step.agent_invoke_and_wait("a", agent.with_input("?"))
        await ctx.step.suspend("never")

    @workflow(id="root")
    async def root(ctx: WorkflowContext) -> None:
        await give_up(ctx, uses)
        await ctx.step.suspend("after")

    async with flowing(store, root, uses) as flows:
        flows.add(AgentRunnable(agent, Providers({"scripted": lambda _: Scripted()}), flows.means))
        run_id = await flows.start(root)
        await flows.holds(run_id, "suspended never")
        await flows.answer(run_id, "enough")
        await flows.holds(run_id, "suspended after")
        await flows.restart()
        await flows.answer(run_id, "after")
        end = (await flows.ended(run_id))[-1]
    assert end.workflow_finish.usage.total_tokens == 7


@pytest.mark.parametrize("how", ["cancelled", "given up"])
async def test_a_child_ends_that_the_code_has_not_come_to_again(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    @workflow(id="root")
    async def root(ctx: WorkflowContext) -> None:
        await give_up(ctx, asks, {})

    come = asyncio.Event()

    async def never(*_: object) -> Message:
        come.set()
        await asyncio.Event().wait()
        raise AssertionError

    async with flowing(store, root, asks) as flows:
        run_id = await flows.start(root)
        await flows.holds(run_id, "suspended ask")
        await flows.stop()
        monkeypatch.setattr(WorkflowRunnable, "first", never)
        flows.begin()
        await come.wait()
        await (flows.cancel(run_id) if how == "cancelled" else flows.answer(run_id, "enough"))
        events = await flows.ended(run_id)
    assert (after_end(events), unended(events)) == ([], set())
