"""Children: workflows and agents that a workflow runs inside its own run."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from google.protobuf.message import Message
from pydantic import BaseModel

from polos.v1.error_pb2 import FailureReason
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
from tests.support.flows import after_end, flowing, kinds, of_workflow, result_of, unended
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
    assert kinds(of_workflow(events, "root")) == [
        "workflow_start",
        "step_start first 1",
        "step_finish first 1",
        "step_start by-id 1",
        "step_finish by-id 1",
        "step_start model 1",
        "step_finish model 1",
        "workflow_finish",
    ]
    child = of_workflow(events, "double")[0]
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
    assert "payload does not fit the workflow 'order': item: Field required" in told[2]
    reasons = [
        one.step_finish.failure.reason
        for one in of_workflow(events, "root")
        if one.HasField("step_finish")
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
        child = of_workflow(await flows.events(run_id), "inner")[0].run_id
        await flows.answer(run_id, "ask", {"ok": True}, child=child)
        events = await flows.ended(run_id)
    assert result_of(events) == {"ok": True}
    assert len({one.run_id for one in events}) == 2


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


@pytest.mark.parametrize("entries", [None, 7, (BatchWorkflowInput(id="none") for _ in range(1))])
async def test_a_batch_is_a_list(store: SqliteStore, entries: Any) -> None:
    @workflow(id="root")
    async def root(ctx: WorkflowContext) -> None:
        await ctx.step.batch_invoke_and_wait("k", entries)

    async with flowing(store, root) as flows:
        events = await flows.run(root)
    assert "of 'k' must be a list of entries" in events[-1].error.message


assert isinstance(double, Workflow)


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


async def test_a_root_waits_for_the_code_of_its_child(store: SqliteStore) -> None:
    @workflow(id="asks")
    async def asks(ctx: WorkflowContext) -> Any:
        return (await ctx.step.suspend("ask", {}))["data"]

    @workflow(id="root")
    async def root(ctx: WorkflowContext) -> Any:
        return await ctx.step.invoke_and_wait("c", asks)

    async with flowing(store, root, asks) as flows:
        run_id = await flows.start(root)
        await flows.holds(run_id, "suspended ask")
        child = of_workflow(await flows.events(run_id), "asks")[0].run_id
    async with flowing(store, root) as old:
        await asyncio.sleep(0.1)
        assert not (await old.events(run_id))[-1].terminal
    async with flowing(store, root, asks) as flows:
        await flows.answer(run_id, "ask", 7, child=child)
        assert result_of(await flows.ended(run_id)) == 7


async def test_an_agent_that_is_too_large_for_a_child_is_refused_with_size_and_limit(
    store: SqliteStore,
) -> None:
    large = scripted("Hello.", id="large", system_prompt="x" * 500_000)

    @workflow(id="root")
    async def root(ctx: WorkflowContext) -> list[str]:
        told: list[str] = []
        for start in (ctx.step.agent_invoke_and_wait, ctx.step.agent_invoke):
            with pytest.raises(StepExecutionError) as raised:
                await start(f"step {len(told)}", large.with_input("Go."))
            told.append(str(raised.value))
        return told

    async with flowing(store, root) as flows:
        flows.add(AgentRunnable(large, Providers({"scripted": lambda _: Scripted()}), flows.means))
        for one in result_of(await flows.run(root)):
            assert (
                "'large' cannot be started by a step: its definition and its input have 50" in one
            )
            assert (
                "bytes as they are stored, the limit is 491520. The definition of an agent" in one
            )


@workflow(id="nested")
async def nested(ctx: WorkflowContext, payload: dict[str, int]) -> Any:
    """Fail below as many runs as the payload says."""
    depth = payload["depth"]
    if depth:
        async with asyncio.TaskGroup() as group:
            key = f'{depth}: it\'s > "deep"'
            group.create_task(ctx.step.invoke_and_wait(key, "nested", {"depth": depth - 1}))

    def fail() -> None:
        raise ValueError("Step 'no' failed: really")

    return await ctx.step.run("k" * 100, fail, max_retries=1, base_delay=0.0)


async def test_the_failure_of_a_nested_child_says_once_where_and_why(store: SqliteStore) -> None:
    async with flowing(store, nested, max_retries=0) as flows:
        events = await flows.run(nested, {"depth": 3})
    path = " > ".join(repr(f'{depth}: it\'s > "deep"') for depth in (3, 2, 1))
    why = "failed after 2 attempts: ValueError: Step 'no' failed: really"
    assert events[-1].error.message == f"Step {path} > '{'k' * 80}...' {why}"


async def test_the_failure_of_the_deepest_child_has_room_for_its_cause(store: SqliteStore) -> None:
    @workflow(id="deep")
    async def deep(ctx: WorkflowContext, payload: int) -> None:
        if not payload:
            raise ValueError("the cause")
        await ctx.step.invoke_and_wait("k" * 1000, "deep", payload - 1)

    async with flowing(store, deep, max_retries=0) as flows:
        events = await flows.run(deep, 32)
    assert events[-1].error.message.endswith(" failed: ValueError: the cause")
