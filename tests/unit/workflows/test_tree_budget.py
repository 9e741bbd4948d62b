"""The budget of a tree: where it stops, who is told, and what counts."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from polos.v1.error_pb2 import FailureReason
from polos.v1.event_pb2 import Cost, Event, Usage
from polos_client.define.agent import Agent
from polos_client.define.context import WorkflowContext
from polos_client.define.scripted import call, fail, pause, turn, usage
from polos_client.define.tool import tool
from polos_client.define.workflow import Workflow, workflow
from polos_client.errors import StepExecutionError
from polos_service.agents.runnable import AgentRunnable
from polos_service.errors import StepError
from polos_service.models import ModelAnswer, ModelRequest, Output
from polos_service.models.providers import Providers
from polos_service.models.scripted import Scripted
from polos_service.runs import retries
from polos_service.runs.attempt import Attempt, StepOutput
from polos_service.runs.spending import TreeBudget
from polos_service.store.sqlite import SqliteStore
from tests.support.flows import Flows, flowing, kinds, result_of
from tests.support.runs import context
from tests.support.service import scripted
from tests.support.stores import claimed

EXCEEDED = FailureReason.FAILURE_REASON_BUDGET_EXCEEDED


@tool
async def note() -> str:
    """Note."""
    return "noted"


class Announcing(Scripted):
    """A model that says when it is called."""

    def __init__(self) -> None:
        self.called = asyncio.Event()

    async def answer(self, request: ModelRequest, output: Output) -> ModelAnswer:
        self.called.set()
        return await super().answer(request, output)


def spender(tokens: int, calls: int = 3, **more: Any) -> Agent:
    """Return an agent that makes so many model calls of so many tokens."""
    asks = [turn(call("note"), usage(output_tokens=tokens)) for _ in range(calls - 1)]
    last = turn("ok", usage(output_tokens=tokens))
    return scripted(*asks, last, id=f"spends-{tokens}", tools=(note,), **more)


def load(flows: Flows, *agents: Agent) -> None:
    for one in agents:
        flows.add(AgentRunnable(one, Providers({"scripted": lambda _: Scripted()}), flows.means))


def spent(events: list[Event]) -> int:
    """Return the tokens that the log tells of."""
    finished = sum(one.step_finish.usage.total_tokens for one in events)
    return finished + sum(one.step_retry.usage.total_tokens for one in events)


def refusals(events: list[Event]) -> list[str]:
    """Return the messages of the model calls that the budget has refused."""
    failures = [one.step_finish.failure for one in events if one.HasField("step_finish")]
    return [one.message for one in failures if one.reason == EXCEEDED]


def batch_of(agent: Agent, size: int) -> Workflow:
    """Return a workflow that runs an agent several times at once, and tells each error."""

    @workflow(id="root")
    async def root(ctx: WorkflowContext) -> list[str | None]:
        inputs = [agent.with_input("Go.") for _ in range(size)]
        results = await ctx.step.batch_agent_invoke_and_wait("all", inputs)
        return [one.error for one in results]

    return root


@pytest.mark.parametrize(
    ("agent", "most"),
    [
        (spender(400), 1000 + 8 * 400),
        (spender(400, max_output_tokens=400), 1000 + 400),
        # More is reserved than is used: calls wait for one another, and none is refused for it.
        (spender(400, max_output_tokens=4000), 1000 + 400),
    ],
    ids=["not known", "reserved", "reserved too much"],
)
async def test_children_at_once_stop_within_one_call_each(
    store: SqliteStore, agent: Agent, most: int
) -> None:
    root = batch_of(agent, 8)
    async with flowing(store, root) as flows:
        load(flows, agent)
        events = await flows.run(root, budget=TreeBudget(tokens=1000))
    assert 1000 <= spent(events) <= most
    assert events[-1].workflow_finish.spent.total_tokens == spent(events)
    errors = result_of(events)
    assert len(errors) == len(refusals(events)) == 8, "each is refused once, and not retried"
    assert all("its budget is 1000 (budget_tokens)" in one for one in errors)
    assert not [one for one in kinds(events) if one.startswith(("step_retry", "workflow_retry"))]


async def test_a_refusal_ends_an_agent_and_not_the_code_that_catches_it(
    store: SqliteStore,
) -> None:
    agent = spender(60)

    @workflow(id="root")
    async def root(ctx: WorkflowContext) -> list[str]:
        told = []
        for number in range(3):
            try:
                await ctx.step.agent_invoke_and_wait(f"ask-{number}", agent.with_input("Go."))
            except StepExecutionError as error:
                told.append(str(error))
        await ctx.step.run("work", lambda: told.append("work"))
        return told

    async with flowing(store, root) as flows:
        load(flows, agent)
        events = await flows.run(root, budget=TreeBudget(tokens=100))
    *refused, worked = result_of(events)
    assert worked == "work"
    assert [("have spent 120 tokens" in one) for one in refused] == [True] * 3
    assert spent(events) == 120
    reasons = {one.error.reason for one in events if one.HasField("error")}
    assert reasons == {EXCEEDED}


async def test_the_budget_survives_crash_and_parking_and_counts_void_attempts(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retries, "BACKOFF_BASE", 0.001)
    cut = turn(pause(None), retried=["ok", usage(output_tokens=1)])
    agent = scripted(
        turn(usage(output_tokens=50), fail(), retried=[call("note"), usage(output_tokens=40)]),
        cut,
        id="cut",
        tools=(note,),
    )

    @workflow(id="root")
    async def root(ctx: WorkflowContext) -> str:
        await ctx.step.agent_invoke_and_wait("first", agent.with_input("Go."))
        await ctx.step.suspend("ask", {})
        try:
            await ctx.step.agent_invoke_and_wait("second", agent.with_input("Go."))
        except StepExecutionError as error:
            return str(error)
        return "not refused"

    async with flowing(store, root, threshold=0.01) as flows:
        load(flows, agent)
        run_id = await flows.start(root, budget=TreeBudget(tokens=91))
        await flows.holds(run_id, "step_start llm:2 1")
        await flows.restart()
        await flows.parked(run_id)
        await flows.answer(run_id, "ask")
        events = await flows.ended(run_id)
    assert "have spent 91 tokens" in result_of(events)
    assert spent(events) == 91


async def test_a_call_that_is_given_up_gives_back_what_it_has_reserved(
    store: SqliteStore,
) -> None:
    model = Announcing()
    hanging = scripted(turn(pause(None)), id="hangs", max_output_tokens=100)
    agent = scripted(turn("ok", usage(output_tokens=5)), id="quick", max_output_tokens=100)

    @workflow(id="root")
    async def root(ctx: WorkflowContext) -> str:
        hangs = asyncio.create_task(
            ctx.step.agent_invoke_and_wait("hangs", hanging.with_input("Go."))
        )
        await model.called.wait()
        waits = asyncio.create_task(ctx.step.agent_invoke_and_wait("ask", agent.with_input("Go.")))
        await asyncio.wait({waits}, timeout=0.05)
        assert not waits.done(), "there is no room yet"
        hangs.cancel()
        return str((await waits).result)

    async with flowing(store, root) as flows:
        load(flows, agent)
        flows.add(AgentRunnable(hanging, Providers({"scripted": lambda _: model}), flows.means))
        assert result_of(await flows.run(root, budget=TreeBudget(tokens=100))) == "ok"


async def test_a_model_without_a_price_is_not_called_within_a_budget_of_cost(
    store: SqliteStore,
) -> None:
    agent = spender(10)
    root = batch_of(agent, 2)
    async with flowing(store, root) as flows:
        load(flows, agent)
        events = await flows.run(root, budget=TreeBudget(usd_micros=5))
    assert spent(events) == 0
    reasons = {one.error.reason for one in events if one.HasField("error")}
    assert reasons == {FailureReason.FAILURE_REASON_PRICE_UNKNOWN}
    assert all(
        "'script' of the provider 'scripted' is not known" in str(one) for one in result_of(events)
    )


async def test_cost_is_bounded_in_dollars(store: SqliteStore) -> None:
    async def priced(_: Attempt) -> StepOutput:
        return StepOutput(
            result_json="1", usage=Usage(output_tokens=1, total_tokens=1), cost=Cost(usd_micros=30)
        )

    async with context(store, await claimed(store)) as ctx:
        ctx.keep_within(TreeBudget(usd_micros=50))
        for number in range(2):
            await ctx.step(f"llm:{number}", "llm", priced)
        with pytest.raises(StepError, match=r"6e-05 US dollars; its budget is 5e-05"):
            await ctx.step("llm:2", "llm", priced)
        await ctx.step("work", "run", priced)
