"""Waits for the ends of runs that have logs of their own."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

import pytest
from pydantic import BaseModel

from polos.v1.error_pb2 import FailureReason
from polos.v1.event_pb2 import WaitKind
from polos_client.define.context import WorkflowContext
from polos_client.define.scripted import call, turn
from polos_client.define.tool import tool
from polos_client.define.workflow import workflow
from polos_client.errors import StepExecutionError, StoreUnavailable
from polos_client.result import AgentResult
from polos_service.agents.runnable import AgentRunnable
from polos_service.models.providers import Providers
from polos_service.models.scripted import Scripted
from polos_service.runs.answers import cancelling
from polos_service.store import CANCEL, Command, RunQuery
from polos_service.store.sqlite import SqliteStore
from tests.support.flows import Flows, flowing, kinds, result_of
from tests.support.service import scripted, until

PARKING = 0.05
"""Seconds after which runs are parked here."""


class Order(BaseModel):
    item: str


@workflow(id="shout")
async def shout(ctx: WorkflowContext, payload: Order) -> Order:
    if payload.item == "gold":
        raise StepExecutionError("no gold")
    return Order(item=payload.item.upper())


@workflow(id="asks")
async def asks(ctx: WorkflowContext) -> Any:
    return (await ctx.step.suspend("on"))["data"]


@workflow(id="parent")
async def parent(ctx: WorkflowContext) -> Any:
    handle = await ctx.step.invoke("go", asks)
    return await ctx.step.wait_for_run("end", handle)


async def child_of(store: SqliteStore, run_id: str) -> str:
    """Wait until a run has started another one, and return its id."""

    async def begun() -> bool:
        return bool(await store.list("default", RunQuery(limit=1, parent_root=run_id)))

    await until(begun, "a run to be started")
    (found,) = await store.list("default", RunQuery(limit=2, parent_root=run_id))
    return found.run_id


async def test_the_result_of_a_run_is_waited_for(store: SqliteStore) -> None:
    @workflow(id="root")
    async def root(ctx: WorkflowContext) -> list[str]:
        handles = [
            await ctx.step.invoke(f"go {item}", shout, Order(item=item)) for item in ("tea", "gold")
        ]
        model = await ctx.step.wait_for_run("first", handles[0])
        assert isinstance(model, Order)
        with pytest.raises(StepExecutionError, match=r"Step 'second' failed: .*no gold"):
            await ctx.step.wait_for_run("second", handles[1].id)
        with pytest.raises(StepExecutionError, match="There is no run 'nobody', or no more"):
            await ctx.step.wait_for_run("third", "nobody")
        again = await ctx.step.wait_for_run("again", handles[0].id)
        return [model.item, again.item]

    async with flowing(store, root, shout) as flows:
        events = await flows.run(root)
    assert result_of(events) == ["TEA", "TEA"]
    waits = [one for one in kinds(events) if "first" in one or "third" in one]
    assert waits == [
        "suspended first",
        "resumed first answered",
        "suspended third",
        "resumed third answered",
    ]
    first = next(one.suspended for one in events if one.HasField("suspended"))
    assert first.kind == WaitKind.WAIT_KIND_RUN
    assert await store.list_waits("default", 10) == []


async def test_the_result_of_an_agent_is_that_of_the_agent(store: SqliteStore) -> None:
    @tool(id="look")
    def look() -> str:
        """Look."""
        return "seen"

    agent = scripted(turn(call("look")), turn("Found."), tools=(look,), id="agent")

    @workflow(id="root")
    async def root(ctx: WorkflowContext) -> Any:
        handle = await ctx.step.invoke("go", "agent", {"input": "Hi"})
        result = await ctx.step.wait_for_run("end", handle)
        assert isinstance(result, AgentResult)
        return [result.result, result.tool_results[0].result, result.agent_run_id == handle.id]

    flows = Flows(store, root)
    flows.add(AgentRunnable(agent, Providers({"scripted": lambda _: Scripted()}), flows.means))
    flows.begin()
    assert await flows.result(root) == ["Found.", "seen", True]
    await flows.stop()


@pytest.mark.parametrize("killed", [False, True], ids=["parked", "killed"])
async def test_a_parked_run_is_woken_by_the_end_once(store: SqliteStore, *, killed: bool) -> None:
    flows = Flows(store, parent, asks, threshold=PARKING)
    flows.begin()
    run_id = await flows.start(parent)
    child = await child_of(store, run_id)
    await flows.parked(run_id)
    if killed:
        await flows.restart()
    await flows.holds(child, "suspended on")
    await flows.answer(child, "on", "yes")
    events = await flows.ended(run_id)
    assert result_of(events) == "yes"
    assert [one for one in kinds(events) if "end" in one] == [
        "suspended end",
        "resumed end answered",
    ]
    await flows.stop()


async def test_a_run_is_not_parked_while_it_learns_that_another_has_ended(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    watch = store.watch

    async def slow(*run: str) -> bool:
        """Answer only after a time in which the run would have been parked."""
        found = await watch(*run)
        await asyncio.sleep(4 * PARKING)
        return found

    @workflow(id="root")
    async def root(ctx: WorkflowContext) -> Any:
        handle = await ctx.step.invoke("go", shout, Order(item="tea"))
        await flows.ended(handle.id)
        return await ctx.step.wait_for_run("end", handle)

    monkeypatch.setattr(store, "watch", slow)
    flows = Flows(store, root, shout, threshold=PARKING)
    flows.begin()
    assert await flows.result(root) == {"item": "TEA"}
    await flows.stop()


@pytest.mark.parametrize("parked", [False, True])
async def test_a_run_that_ends_while_nobody_serves_is_found(
    store: SqliteStore, *, parked: bool
) -> None:
    flows = Flows(store, parent, asks, threshold=PARKING if parked else 60.0)
    flows.begin()
    run_id = await flows.start(parent)
    child = await child_of(store, run_id)
    await flows.holds(run_id, "suspended end")
    if parked:
        await flows.parked(run_id)
    await flows.holds(child, "suspended on")
    await flows.stop()
    async with flowing(store, asks) as others:
        await others.answer(child, "on", 7)
        await others.ended(child)
    await flows.restart()
    assert result_of(await flows.ended(run_id)) == 7
    await flows.stop()


async def test_the_result_outlives_the_run(store: SqliteStore) -> None:
    gate = asyncio.Event()

    @workflow(id="root")
    async def root(ctx: WorkflowContext) -> Any:
        handle = await ctx.step.invoke("go", shout, Order(item="tea"))
        order = await ctx.step.wait_for_run("end", handle)
        await ctx.step.run("gate", gate.wait)
        return order.item

    async with flowing(store, root, shout) as flows:
        run_id = await flows.start(root)
        child = await child_of(store, run_id)
        await flows.holds(run_id, "step_start gate 1")
        await store.delete("default", child)
        gate.set()
        await flows.restart()
        assert result_of(await flows.ended(run_id)) == "TEA"


async def test_a_wait_for_a_run_expires_and_the_run_goes_on(store: SqliteStore) -> None:
    @workflow(id="root")
    async def root(ctx: WorkflowContext) -> str:
        handle = await ctx.step.invoke("go", asks)
        with pytest.raises(StepExecutionError, match="has not ended in time"):
            await ctx.step.wait_for_run("end", handle, timeout=0.05)
        return str(handle.id)

    async with flowing(store, root, asks) as flows:
        events = await flows.run(root)
        child = result_of(events)
        await flows.holds(child, "suspended on")
        await flows.answer(child, "on", 1)
        assert result_of(await flows.ended(child)) == 1
    assert "resumed end expired" in kinds(events)


@pytest.mark.parametrize("parked", [False, True])
async def test_runs_that_are_waited_for_are_cancelled_first(
    store: SqliteStore, *, parked: bool
) -> None:
    @workflow(id="root")
    async def root(ctx: WorkflowContext, payload: str) -> None:
        handle = await ctx.step.invoke("go", asks)
        await ctx.step.invoke("left alone", asks)
        await asyncio.gather(
            ctx.step.wait_for_run("own", handle), ctx.step.wait_for_run("other", payload)
        )

    async with flowing(store, root, asks, threshold=PARKING if parked else 60.0) as flows:
        other = await flows.start(asks)
        run_id = await flows.start(root, other)
        await flows.holds(run_id, "suspended other")
        alone, own = await store.list("default", RunQuery(limit=2, parent_root=run_id))
        assert own.parent is not None
        assert own.parent.step_key == "go"
        for one in (own.run_id, alone.run_id, other):
            await flows.holds(one, "suspended on")
        if parked:
            await flows.parked(run_id)
        await flows.cancel(run_id)
        assert kinds(await flows.ended(run_id))[-1] == "run_cancelled"
        assert kinds(await flows.ended(own.run_id))[-1] == "run_cancelled"
        for one in (alone.run_id, other):
            await flows.answer(one, "on")
            assert kinds(await flows.ended(one))[-1] == "workflow_finish"


@pytest.mark.parametrize("by_child", [False, True])
async def test_a_run_that_is_waited_for_is_cancelled_although_the_store_was_away(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch, *, by_child: bool
) -> None:
    @workflow(id="root")
    async def root(ctx: WorkflowContext) -> Any:
        return await ctx.step.invoke_and_wait("child", parent)

    command = store.command
    refused: list[str] = []

    async def away(project: str, run_id: str, told: Command) -> Command | None:
        """Be away for the first order to cancel a run that another has started."""
        if not refused and told.kind == CANCEL and run_id != root_id:
            refused.append(run_id)
            await asyncio.sleep(4 * PARKING)  # what the run has told until then is stored
            raise StoreUnavailable("away")
        return await command(project, run_id, told)

    async with flowing(store, root, parent, asks) as flows:
        root_id = await flows.start(root if by_child else parent)
        other = await child_of(store, root_id)
        await flows.holds(root_id, "suspended end")
        await flows.holds(other, "suspended on")
        monkeypatch.setattr(store, "command", away)
        await flows.cancel(root_id)
        assert kinds(await flows.ended(root_id))[-1] == "run_cancelled"
        assert refused == [other]
        assert kinds(await flows.ended(other))[-1] == "run_cancelled"


@pytest.mark.parametrize("cancelled", [False, True])
async def test_a_run_is_not_cancelled_for_a_child_that_waited_for_it_and_has_ended(
    store: SqliteStore, *, cancelled: bool
) -> None:
    @workflow(id="leaves")
    async def leaves(ctx: WorkflowContext) -> None:
        handle = await ctx.step.invoke("go", asks)
        wait = asyncio.ensure_future(ctx.step.wait_for_run("end", handle))
        await ctx.step.run("b", str)
        if cancelled:
            await wait

    @workflow(id="root")
    async def root(ctx: WorkflowContext) -> None:
        with contextlib.suppress(StepExecutionError):
            await ctx.step.invoke_and_wait("child", leaves)
        await ctx.step.suspend("hold")

    async with flowing(store, root, leaves, asks) as flows:
        run_id = await flows.start(root)
        other = await child_of(store, run_id)
        await flows.holds(other, "suspended on")
        if cancelled:
            await flows.holds(run_id, "step_finish b 1")
            (record,) = await store.list("default", RunQuery(limit=2, parent_root=run_id))
            assert record.parent is not None
            await store.command("default", run_id, cancelling(record.parent.run_id))
        await flows.holds(run_id, "suspended hold")
        await flows.cancel(run_id)
        assert kinds(await flows.ended(run_id))[-1] == "run_cancelled"
        await flows.answer(other, "on")
        assert kinds(await flows.ended(other))[-1] == "workflow_finish"


async def test_a_cancelled_run_fails_the_wait(store: SqliteStore) -> None:
    async with flowing(store, parent, asks) as flows:
        run_id = await flows.start(parent)
        child = await child_of(store, run_id)
        await flows.holds(child, "suspended on")
        await flows.cancel(child)
        events = await flows.ended(run_id)
    assert events[-1].HasField("error")
    assert f"The run {child} was cancelled" in events[-1].error.message
    assert events[-1].error.reason == FailureReason.FAILURE_REASON_WORKFLOW_FAILED


async def test_a_wait_that_lost_a_race_is_closed(store: SqliteStore) -> None:
    @workflow(id="root")
    async def root(ctx: WorkflowContext) -> str:
        handle = await ctx.step.invoke("go", asks)
        wait = asyncio.ensure_future(ctx.step.wait_for_run("end", handle))
        await ctx.step.wait_for("time", seconds=0.05)
        wait.cancel()
        await asyncio.wait({wait})
        return str(handle.id)

    async with flowing(store, root, asks) as flows:
        events = await flows.run(root)
        assert "resumed end cancelled" in kinds(events)
        await flows.holds(result_of(events), "suspended on")


async def test_what_cannot_be_waited_for_is_refused(store: SqliteStore) -> None:
    @workflow(id="root")
    async def root(ctx: WorkflowContext) -> str:
        wrong: list[Any] = [ctx.execution_id, f"{ctx.execution_id}:5", "", None, 7]
        for number, one in enumerate(wrong):
            with pytest.raises(StepExecutionError, match="must be another run"):
                await ctx.step.wait_for_run(f"k{number}", one)
        with pytest.raises(StepExecutionError, match="timeout"):
            await ctx.step.wait_for_run("t", "run", timeout=0)
        return "refused"

    async with flowing(store, root) as flows:
        assert await flows.result(root) == "refused"


@workflow(id="waits-for")
async def waits_for(ctx: WorkflowContext, payload: dict[str, Any]) -> Any:
    """Wait for a run, or start one more of these between that run and this one."""
    if payload["between"]:
        below = {**payload, "between": payload["between"] - 1}
        handle = await ctx.step.invoke("below", "waits-for", below)
        return await ctx.step.wait_for_run("end", handle)
    return await ctx.step.wait_for_run("end", payload["run"], timeout=payload["timeout"])


@workflow(id="circle")
async def circle(ctx: WorkflowContext, payload: dict[str, Any]) -> Any:
    below = {**payload, "run": ctx.execution_id}
    handle = await ctx.step.invoke("below", waits_for, below)
    if payload["first"]:
        await ctx.step.suspend("go")
    if payload["waits"]:
        return await ctx.step.wait_for_run("end", handle)
    return handle.id


def going(
    *, between: int = 0, first: bool = False, waits: bool = True, timeout: float | None = None
) -> dict[str, Any]:
    return {"between": between, "first": first, "waits": waits, "timeout": timeout}


@pytest.mark.parametrize("between", [0, 2])
async def test_a_wait_that_closes_a_circle_is_refused(store: SqliteStore, between: int) -> None:
    async with flowing(store, circle, waits_for, threshold=PARKING) as flows:
        events = await flows.run(circle, going(between=between))
    assert "waits for the end of this run, itself or through others" in events[-1].error.message


async def test_who_waits_last_is_refused(store: SqliteStore) -> None:
    async with flowing(store, circle, waits_for, threshold=PARKING) as flows:
        run_id = await flows.start(circle, going(first=True))
        below = await child_of(store, run_id)
        await flows.holds(below, "suspended end")
        await flows.answer(run_id, "go", "yes")
        events = await flows.ended(run_id)
        step, why = events[-1].error.message.split(" failed: ")
        assert why.startswith(f"The run {below} waits for the end of this run")
        told = (await flows.ended(below))[-1].error.message
        assert told == f"Step 'end' > {step.removeprefix('Step ')} failed: {why}"


async def test_a_run_may_wait_for_the_one_that_started_it(store: SqliteStore) -> None:
    async with flowing(store, circle, waits_for, threshold=PARKING) as flows:
        below = result_of(await flows.run(circle, going(waits=False)))
        assert result_of(await flows.ended(below)) == below


async def test_a_circle_with_a_timeout_is_none(store: SqliteStore) -> None:
    async with flowing(store, circle, waits_for, threshold=PARKING) as flows:
        events = await flows.run(circle, going(timeout=0.2))
    assert "has not ended in time" in events[-1].error.message


async def test_a_run_that_waits_gives_its_slot_to_the_one_it_waits_for(store: SqliteStore) -> None:
    @workflow(id="root")
    async def root(ctx: WorkflowContext) -> str:
        handle = await ctx.step.invoke("go", shout, Order(item="tea"))
        return str((await ctx.step.wait_for_run("end", handle)).item)

    async with flowing(store, root, shout, limit=1, threshold=PARKING) as flows:
        assert await flows.result(root) == "TEA"


async def test_a_child_waits_for_a_run_of_its_own(store: SqliteStore) -> None:
    @workflow(id="root")
    async def root(ctx: WorkflowContext) -> Any:
        return await ctx.step.invoke_and_wait("child", parent)

    async with flowing(store, root, parent, asks, threshold=PARKING) as flows:
        run_id = await flows.start(root)
        child = await child_of(store, run_id)
        await flows.parked(run_id)
        await flows.holds(child, "suspended on")
        await flows.answer(child, "on", "yes")
        assert result_of(await flows.ended(run_id)) == "yes"
        (record,) = await store.list("default", RunQuery(limit=2, parent_root=run_id))
    assert record.parent is not None
    assert record.parent.run_id.startswith(f"{run_id}:")
    assert record.parent.depth == 2
