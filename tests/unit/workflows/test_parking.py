"""A run is not parked while something else than a wait is under way, however long that takes."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from polos_client.define.context import WorkflowContext
from polos_client.define.scripted import call, turn
from polos_client.define.stop import StopConditionContext, stop_condition
from polos_client.define.tool import tool
from polos_client.define.workflow import Workflow, workflow
from polos_client.errors import StepExecutionError
from polos_service.agents.runnable import AgentRunnable
from polos_service.models.providers import Providers
from polos_service.models.scripted import Scripted
from polos_service.runs.answers import cancelling
from polos_service.store.sqlite import SqliteStore
from tests.support.flows import Flows, result_of
from tests.support.service import scripted

PARKING = 0.05
"""Seconds after which runs are parked here."""

LONG = 4 * PARKING
"""Seconds after which a run that only waits has been parked."""

pytestmark = pytest.mark.usefixtures("slow")


@pytest.fixture
def slow(store: SqliteStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the store take longer for each append than a run waits that is parked."""
    append = store.append

    async def appended(*frame: Any) -> None:
        await append(*frame)
        await asyncio.sleep(LONG)

    monkeypatch.setattr(store, "append", appended)


Does = Callable[[WorkflowContext], Awaitable[Any]]


def beside(does: Does) -> Workflow:
    """Return a workflow that waits for an answer while it does something else."""

    @workflow(id="root")
    async def root(ctx: WorkflowContext) -> Any:
        _, found = await asyncio.gather(ctx.step.suspend("hold"), does(ctx))
        return found

    return root


async def found(flows: Flows, root: Workflow) -> Any:
    """Run the workflow; answer once it does nothing but wait for that."""
    flows.begin()
    run_id = await flows.start(root)
    await flows.holds(run_id, "step_finish go 1")
    await flows.answer(run_id, "hold")
    events = await flows.ended(run_id)
    await flows.stop()
    return result_of(events)


async def test_a_child_begins_and_ends(store: SqliteStore) -> None:
    @workflow(id="child")
    async def child(ctx: WorkflowContext) -> str:
        return str(await ctx.step.run("a", str, "done"))

    root = beside(lambda ctx: ctx.step.invoke_and_wait("go", child))
    assert await found(Flows(store, root, child, threshold=PARKING), root) == "done"


async def test_a_child_starts_over(store: SqliteStore) -> None:
    @workflow(id="child")
    async def child(ctx: WorkflowContext) -> int:
        if not ctx.retry_count:
            raise ValueError("once")
        return ctx.retry_count

    root = beside(lambda ctx: ctx.step.invoke_and_wait("go", child))
    assert await found(Flows(store, root, child, threshold=PARKING), root) == 1


async def test_a_child_leaves_a_wait(store: SqliteStore) -> None:
    @workflow(id="child")
    async def child(ctx: WorkflowContext) -> str:
        left = asyncio.ensure_future(ctx.step.suspend("left"))
        await ctx.step.run("a", str)
        return "left" if not left.done() else "answered"

    root = beside(lambda ctx: ctx.step.invoke_and_wait("go", child))
    assert await found(Flows(store, root, child, threshold=PARKING), root) == "left"


async def test_a_child_is_cancelled(store: SqliteStore) -> None:
    @workflow(id="child")
    async def child(ctx: WorkflowContext) -> None:
        await ctx.step.suspend("on")

    async def refused(ctx: WorkflowContext) -> str:
        with pytest.raises(StepExecutionError, match="was cancelled"):
            await ctx.step.invoke_and_wait("go", child)
        return "cancelled"

    root = beside(refused)
    flows = Flows(store, root, child, threshold=PARKING)
    flows.begin()
    run_id = await flows.start(root)
    await flows.holds(run_id, "suspended on")
    (begun,) = {one.run_id for one in await flows.events(run_id)} - {run_id}
    await store.command("default", run_id, cancelling(begun))
    await flows.holds(run_id, "step_failed go 1")
    await flows.answer(run_id, "hold")
    assert result_of(await flows.ended(run_id)) == "cancelled"
    await flows.stop()


async def test_a_run_is_started(store: SqliteStore) -> None:
    @workflow(id="other")
    async def other(_: WorkflowContext) -> None:
        pass

    async def start(ctx: WorkflowContext) -> bool:
        await ctx.step.run("before", str)
        return bool((await ctx.step.invoke("go", other)).id)

    root = beside(start)
    assert await found(Flows(store, root, other, threshold=PARKING), root) is True


def with_agent(store: SqliteStore, **options: Any) -> tuple[Flows, Workflow]:
    """Return a workflow whose child is an agent that calls a tool, and what runs it."""

    @tool(id="look")
    async def look(ctx: WorkflowContext) -> str:
        """Look."""
        return str(await ctx.step.run("a", str, "seen"))

    agent = scripted(turn(call("look")), turn("Found."), tools=(look,), id="agent", **options)

    async def asked(ctx: WorkflowContext) -> Any:
        result = await ctx.step.invoke_and_wait("go", "agent", {"input": "Hi"})
        return result.tool_results[0].result

    root = beside(asked)
    flows = Flows(store, root, threshold=PARKING)
    flows.add(AgentRunnable(agent, Providers({"scripted": lambda _: Scripted()}), flows.means))
    return flows, root


async def test_a_tool_of_an_agent_has_steps(store: SqliteStore) -> None:
    assert await found(*with_agent(store)) == "seen"


async def test_an_agent_asks_whether_to_stop(store: SqliteStore) -> None:
    @stop_condition
    async def looked(ctx: StopConditionContext) -> bool:
        await asyncio.sleep(LONG)
        return bool(ctx.steps)

    assert await found(*with_agent(store, stop_conditions=[looked])) == "seen"
