"""Children: workflows and agents that a workflow runs inside its own run."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from google.protobuf.message import Message
from pydantic import BaseModel

from polos.v1.error_pb2 import FailureReason
from polos.v1.event_pb2 import Event
from polos.v1.run_pb2 import Wait
from polos_client.define.children import BatchWorkflowInput
from polos_client.define.context import WorkflowContext
from polos_client.define.scripted import call, turn, usage
from polos_client.define.tool import tool
from polos_client.define.workflow import Workflow, workflow
from polos_client.errors import StepExecutionError
from polos_client.result import AgentResult
from polos_service.agents.runnable import AgentRunnable
from polos_service.models.providers import Providers
from polos_service.models.scripted import Scripted
from polos_service.store import Claim, Entry
from polos_service.store.sqlite import SqliteStore
from polos_service.workflows.runnable import WorkflowRunnable
from tests.support.flows import flowing, kinds, result_of
from tests.support.service import scripted, until


class Order(BaseModel):
    item: str
    count: int = 1


@workflow(id="double")
async def double(ctx: WorkflowContext, payload: dict[str, Any]) -> int:
    return int(await ctx.step.run("double", lambda: payload["value"] * 2))


@workflow(id="raises")
async def raises(ctx: WorkflowContext, payload: dict[str, Any]) -> None:
    raise StepExecutionError(f"no {payload['what']}")


@workflow(id="order")
async def order(ctx: WorkflowContext, payload: Order) -> Order:
    return Order(item=payload.item.upper(), count=payload.count + 1)


def of(events: list[Event], workflow_id: str) -> list[Event]:
    """Return the events of the runs of a workflow."""
    return [one for one in events if one.workflow_id == workflow_id]


async def test_a_child_writes_into_its_root_s_log_and_returns_its_result(
    store: SqliteStore,
) -> None:
    @workflow(id="root")
    async def root(ctx: WorkflowContext) -> list[Any]:
        first = await ctx.step.invoke_and_wait("first", double, {"value": 4})
        by_id = await ctx.step.invoke_and_wait("by-id", "double", {"value": first})
        model = await ctx.step.invoke_and_wait("model", order, Order(item="tea"))
        assert isinstance(model, Order)
        return [first, by_id, model.item, model.count]

    async with flowing(store, root, double, order) as flows:
        events = await flows.run(root)
        assert result_of(events) == [8, 16, "TEA", 2]
    assert kinds(of(events, "root")) == [
        "workflow_start",
        "step_start first 1",
        "step_finish first 1",
        "step_start by-id 1",
        "step_finish by-id 1",
        "step_start model 1",
        "step_finish model 1",
        "workflow_finish",
    ]
    child = of(events, "double")[0]
    assert child.run_id == f"{events[0].run_id}:{child.sequence}"
    assert (child.parent_run_id, child.parent_step_key) == (events[0].run_id, "first")
    assert [one.terminal for one in events if one.HasField("workflow_finish")] == [
        *[False] * 3,
        True,
    ]


async def test_a_child_that_fails_fails_its_step_with_its_message(store: SqliteStore) -> None:
    told: list[str] = []

    @workflow(id="root")
    async def root(ctx: WorkflowContext) -> str:
        for target, payload in ((raises, {"what": "tea"}), ("nobody", {}), (order, {"count": 1})):
            try:
                await ctx.step.invoke_and_wait(f"k{len(told)}", target, payload)
            except StepExecutionError as error:
                told.append(str(error))
        return "ended"

    async with flowing(store, root, raises, order) as flows:
        events = await flows.run(root)
        assert result_of(events) == "ended"
    assert "no tea" in told[0]
    assert "nobody" in told[1]
    assert "item" in told[2]
    reasons = [
        one.step_finish.failure.reason for one in of(events, "root") if one.HasField("step_finish")
    ]
    assert reasons[:2] == [
        FailureReason.FAILURE_REASON_CHILD_FAILED,
        FailureReason.FAILURE_REASON_CODE_MISSING,
    ]


async def test_a_batch_tells_each_result_in_order(store: SqliteStore) -> None:
    @workflow(id="root")
    async def root(ctx: WorkflowContext) -> Any:
        assert await ctx.step.batch_invoke_and_wait("none", []) == []
        results = await ctx.step.batch_invoke_and_wait(
            "all",
            [
                BatchWorkflowInput(id="double", payload={"value": 1}),
                BatchWorkflowInput(id="raises", payload={"what": "tea"}),
                BatchWorkflowInput(id="order", payload=Order(item="tea")),
            ],
        )
        assert results[2].result == Order(item="TEA", count=2)
        return [(one.workflow_id, one.success, one.result, one.error) for one in results[:2]]

    async with flowing(store, root, double, raises, order) as flows:
        first, second = await flows.result(root)
    assert first == ["double", True, 2, None]
    assert second[:3] == ["raises", False, None]
    assert "no tea" in second[3]


async def test_a_killed_child_goes_on_and_finished_steps_do_not_run_again(
    store: SqliteStore,
) -> None:
    calls: list[str] = []
    go_on = asyncio.Event()

    @workflow(id="inner")
    async def inner(ctx: WorkflowContext) -> str:
        await ctx.step.run("before", lambda: calls.append("before"))
        await ctx.step.run("hold", go_on.wait)
        return await ctx.step.uuid("id")

    @workflow(id="middle")
    async def middle(ctx: WorkflowContext) -> str:
        calls.append("middle")
        return str(await ctx.step.invoke_and_wait("inner", inner))

    @workflow(id="root")
    async def root(ctx: WorkflowContext) -> list[Any]:
        return await asyncio.gather(
            *(ctx.step.invoke_and_wait(f"middle-{one}", middle) for one in range(3))
        )

    async with flowing(store, root, middle, inner) as flows:
        run_id = await flows.start(root)
        await flows.holds(run_id, "step_start hold 1")
        await flows.restart()
        go_on.set()
        events = await flows.ended(run_id)
    assert len(set(result_of(events))) == 3
    assert calls.count("before") == 3
    assert len({one.run_id for one in events}) == 7
    assert len([one for one in events if one.HasField("workflow_start")]) == 7


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


async def test_a_child_parks_with_its_root_and_goes_on(store: SqliteStore) -> None:
    @workflow(id="inner")
    async def inner(ctx: WorkflowContext) -> Any:
        return (await ctx.step.suspend("ask", {"question": "Go on?"}))["data"]

    @workflow(id="root")
    async def root(ctx: WorkflowContext) -> Any:
        return await ctx.step.invoke_and_wait("inner", inner)

    async with flowing(store, root, inner, threshold=0.01) as flows:
        run_id = await flows.start(root)
        await flows.parked(run_id)
        child = of(await flows.events(run_id), "inner")[0].run_id
        await flows.answer(run_id, "ask", {"ok": True}, child=child)
        events = await flows.ended(run_id)
    assert result_of(events) == {"ok": True}
    assert len({one.run_id for one in events}) == 2


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
    (ended,) = [one for one in of(events, "inner") if one.HasField("error")]
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


async def test_recursion_is_bounded(store: SqliteStore) -> None:
    @workflow(id="again")
    async def again(ctx: WorkflowContext) -> Any:
        return await ctx.step.invoke_and_wait("again", "again")

    async with flowing(store, again) as flows:
        events = await flows.run(again)
    assert len({one.run_id for one in events}) == 33
    assert "32 runs above it" in events[-1].error.message


async def test_an_agent_is_a_child(store: SqliteStore) -> None:
    @tool
    def look(ctx: WorkflowContext, city: str) -> str:
        """Look."""
        return f"sun in {city}"

    agent = scripted(
        turn(call("look", city="Rome"), usage(input_tokens=5, output_tokens=2)),
        turn("Sunny.", usage(input_tokens=8, output_tokens=1)),
        id="forecast",
        tools=(look,),
    )

    @workflow(id="root")
    async def root(ctx: WorkflowContext) -> Any:
        result = await ctx.step.agent_invoke_and_wait(
            "ask", agent.with_input("Weather?", streaming=True)
        )
        assert isinstance(result, AgentResult)
        both = await ctx.step.batch_agent_invoke_and_wait(
            "both", [agent.with_input("Again?"), agent.with_input("Again?")]
        )
        return [result.result, result.tool_results[0].result, [one.result.result for one in both]]

    async with flowing(store, root) as flows:
        flows.add(AgentRunnable(agent, Providers({"scripted": lambda _: Scripted()}), flows.means))
        events = await flows.run(root)
    assert result_of(events) == ["Sunny.", "sun in Rome", ["Sunny.", "Sunny."]]
    assert events[-1].workflow_finish.usage.total_tokens == sum(
        one.agent_finish.usage.total_tokens for one in events if one.HasField("agent_finish")
    )


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
    told = kinds(of(events, "agent"))
    assert told[-2:] == ["step_failed stubborn 1", "run_cancelled"]


async def test_a_child_that_was_unknown_at_first_may_be_an_agent_later(
    store: SqliteStore,
) -> None:
    agent = scripted("Rain.", id="forecast")

    @workflow(id="root")
    async def root(ctx: WorkflowContext) -> Any:
        try:
            await ctx.step.invoke_and_wait("ask", "forecast", {"input": "Weather?"})
        except StepExecutionError as error:
            failed = str(error)
        await ctx.step.suspend("go")
        again = await ctx.step.invoke_and_wait("again", "forecast", {"input": "Weather?"})
        await ctx.step.suspend("end")
        return [failed, again.result]

    async with flowing(store, root, threshold=0.02) as flows:
        run_id = await flows.start(root)
        await flows.parked(run_id)
        flows.add(AgentRunnable(agent, Providers({"scripted": lambda _: Scripted()}), flows.means))
        await flows.answer(run_id, "go")
        await flows.holds(run_id, "suspended end")
        await flows.parked(run_id)
        await flows.answer(run_id, "end")
        failed, result = result_of(await flows.ended(run_id))
    assert "There is no 'forecast'." in failed
    assert result == "Rain."


@pytest.mark.parametrize("target", [7, None, ""])
async def test_what_cannot_be_a_child_is_refused(store: SqliteStore, target: Any) -> None:
    @workflow(id="root")
    async def root(ctx: WorkflowContext) -> None:
        await ctx.step.invoke_and_wait("k", target)

    async with flowing(store, root) as flows:
        events = await flows.run(root)
    assert "must be a workflow, an agent, or the id of one" in events[-1].error.message


assert isinstance(double, Workflow)


@workflow(id="asks")
async def asks(ctx: WorkflowContext, payload: dict[str, Any]) -> Any:
    return (await ctx.step.suspend("ask", payload))["data"]


def after_end(events: list[Event]) -> list[str]:
    """Return what children did after their ends."""
    ended: set[str] = set()
    late = []
    for event in events:
        if event.run_id in ended:
            late.append(kinds([event])[0])
        if event.WhichOneof("payload") in {"workflow_finish", "error", "run_cancelled"}:
            ended.add(event.run_id)
    return late


def unended(events: list[Event]) -> set[str]:
    """Return the runs that have begun and not ended."""
    begun = {one.run_id for one in events if one.HasField("workflow_start")}
    ends = {"workflow_finish", "error", "run_cancelled"}
    return begun - {one.run_id for one in events if one.WhichOneof("payload") in ends}


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


async def test_siblings_that_start_over_together_lose_no_child(store: SqliteStore) -> None:
    @workflow(id="again")
    async def again(ctx: WorkflowContext, payload: dict[str, Any]) -> int:
        found = int(await ctx.step.invoke_and_wait("leaf", double, {"value": payload["at"]}))
        if ctx.retry_count < 2:
            raise RuntimeError("again")
        return found

    @workflow(id="root")
    async def root(ctx: WorkflowContext) -> list[Any]:
        entries = [BatchWorkflowInput(id="again", payload={"at": at}) for at in range(10)]
        return [one.result for one in await ctx.step.batch_invoke_and_wait("all", entries)]

    async with flowing(store, root, again, double) as flows:
        events = await flows.run(root)
    assert result_of(events) == [2 * at for at in range(10)]
    assert len({one.run_id for one in events}) == 21
    assert (after_end(events), unended(events)) == ([], set())


async def test_siblings_that_start_over_together_share_one_reading_of_the_log(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    readings: list[None] = []
    history = store.history
    run_id = ""

    async def all_start_over() -> bool:
        return kinds(await flows.events(run_id)).count("workflow_retry 2") == 10

    async def counted(claim: Claim) -> AsyncIterator[Entry]:
        readings.append(None)
        if len(readings) == 1:
            await until(all_start_over, "all to start over")
        async for entry in history(claim):
            yield entry

    monkeypatch.setattr(store, "history", counted)

    @workflow(id="again")
    async def again(ctx: WorkflowContext, payload: dict[str, Any]) -> int:
        if ctx.retry_count == 0:
            raise RuntimeError("again")
        return int(payload["at"])

    @workflow(id="root")
    async def root(ctx: WorkflowContext) -> list[Any]:
        entries = [BatchWorkflowInput(id="again", payload={"at": at}) for at in range(10)]
        return [one.result for one in await ctx.step.batch_invoke_and_wait("all", entries)]

    async with flowing(store, root, again) as flows:
        run_id = await flows.start(root)
        assert result_of(await flows.ended(run_id)) == list(range(10))
    assert len(readings) <= 2  # one for the first, and one for those who asked meanwhile


async def test_waits_that_an_ended_child_left_open_are_closed_by_the_next_claim(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As after a crash between the end of the child and what follows it."""

    @workflow(id="root")
    async def root(ctx: WorkflowContext) -> None:
        child = asyncio.create_task(ctx.step.invoke_and_wait("c", asks, {}))
        await ctx.step.suspend("enough")
        child.cancel()
        await asyncio.wait({child})
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
        child = asyncio.create_task(ctx.step.invoke_and_wait("c", uses))
        await ctx.step.suspend("enough")
        child.cancel()
        await asyncio.wait({child})
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


async def test_one_child_begins_in_each_turn_of_the_loop(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    turn = 0
    begun: list[int] = []
    at_work: list[int] = []
    first = WorkflowRunnable.first

    async def count() -> None:
        nonlocal turn
        while True:
            turn += 1
            await asyncio.sleep(0)

    async def noted(runnable: WorkflowRunnable, pinned: bytes) -> Message:
        begun.append(turn)
        return await first(runnable, pinned)

    monkeypatch.setattr(WorkflowRunnable, "first", noted)

    @workflow(id="none")
    async def none(ctx: WorkflowContext) -> None:
        at_work.append(turn)

    @workflow(id="root")
    async def root(ctx: WorkflowContext) -> int:
        entries = [BatchWorkflowInput(id="none") for _ in range(50)]
        return len(await ctx.step.batch_invoke_and_wait("all", entries))

    async with flowing(store, root, none) as flows:
        counting = asyncio.create_task(count())
        assert await flows.result(root) == 50
        counting.cancel()
    assert len(begun) == len(set(begun)) == 50
    assert len(at_work) == len(set(at_work)) == 50, "though many were durable in the same turn"


@pytest.mark.parametrize("how", ["cancelled", "given up"])
async def test_a_child_ends_that_the_code_has_not_come_to_again(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    @workflow(id="root")
    async def root(ctx: WorkflowContext) -> None:
        child = asyncio.create_task(ctx.step.invoke_and_wait("c", asks, {}))
        await ctx.step.suspend("enough")
        child.cancel()
        await asyncio.wait({child})

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


async def test_a_root_waits_for_the_code_of_its_child(store: SqliteStore) -> None:
    @workflow(id="root")
    async def root(ctx: WorkflowContext) -> Any:
        return await ctx.step.invoke_and_wait("c", asks, {})

    async with flowing(store, root, asks) as flows:
        run_id = await flows.start(root)
        await flows.holds(run_id, "suspended ask")
        child = of(await flows.events(run_id), "asks")[0].run_id
    async with flowing(store, root) as old:
        await asyncio.sleep(0.1)
        assert not (await old.events(run_id))[-1].terminal
    async with flowing(store, root, asks) as flows:
        await flows.answer(run_id, "ask", 7, child=child)
        assert result_of(await flows.ended(run_id)) == 7
