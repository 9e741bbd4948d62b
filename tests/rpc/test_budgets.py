"""Budgets of runs, and what runs have spent, as callers give and get them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from polos import Agent, Budget, PolosClient, RunFailed, WorkflowContext, workflow
from polos.features import events
from polos.v1 import run_service_pb2 as pb
from polos.v1.event_pb2 import Cost
from polos.v1.run_pb2 import RunOptions
from polos_client.define.scripted import call, fail, turn, usage
from polos_client.define.tool import tool
from polos_client.errors import DefinitionError, InvalidRequest
from polos_client.result import AgentResult, Usage
from polos_service.runs import retries
from tests.rpc.test_calls_start import refused
from tests.support.service import scripted, serving


@tool
async def note() -> str:
    """Note."""
    return "noted"


spender = scripted(
    turn(usage(output_tokens=7), fail(), retried=[call("note"), usage(output_tokens=60)]),
    turn("ok", usage(output_tokens=60)),
    id="spender",
    tools=(note,),
)


@workflow(id="asks")
async def asks(ctx: WorkflowContext) -> str:
    result = await ctx.step.agent_invoke_and_wait("ask", spender.with_input("Go."))
    return str(result.result)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retries, "BACKOFF_BASE", 0.001)


async def streamed(client: PolosClient, budget: Budget) -> Any:
    return await (await spender.stream(client, "Go.", budget=budget)).result()


async def invoked(client: PolosClient, handle: Any) -> Any:
    found = events.stream_workflow(client, workflow_run_id=handle.id)
    last = [one async for one in found][-1]
    assert last.event_type == "error", last.data
    assert last.data["spent"]["total_tokens"] == 67
    told = await handle.get(client)
    assert (told["spent"].total_tokens, told["spent_cost"]) == (67, None)
    record = await client.get_execution(handle.id)
    assert record["spent"]["total_tokens"] == 67
    raise RunFailed(told["error"], run_id=handle.id, reason="x", usage=Usage())


async def test_every_way_to_start_a_run_takes_a_budget(tmp_path: Path) -> None:
    small, large = Budget(tokens=50), Budget(tokens=1000, cost=None)
    async with serving(tmp_path, spender, asks) as served:
        client = served.client
        ways = [
            spender.run(client, "Go.", budget=small),
            streamed(client, small),
            asks.run(client, budget=small),
            invoked(client, await spender.invoke(client, {"input": "Go."}, budget=small)),
            invoked(client, await asks.invoke(client, budget=small)),
            invoked(client, await client.invoke("spender", {"input": "Go."}, budget=small)),
            invoked(client, await client.invoke("asks", budget=small)),
        ]
        for number, way in enumerate(ways):
            with pytest.raises(RunFailed, match="spent 67 tokens; its budget is 50") as caught:
                await way
            if number < 3:
                assert (caught.value.usage.total_tokens, caught.value.spent.total_tokens) == (
                    60,
                    67,
                )
        result = await spender.run(client, "Go.", budget=large)
        assert (result.usage.total_tokens, result.spent.total_tokens) == (120, 127)
        assert await asks.run(client, budget=large) == "ok"


async def test_a_budget_that_makes_no_sense_is_refused(tmp_path: Path) -> None:
    for wrong in ({}, {"tokens": 0}, {"tokens": 1.5}, {"cost": 0}, {"cost": 1e12}, {"cost": "1"}):
        with pytest.raises(DefinitionError, match=r"budget|Budget"):
            Budget(**wrong)
    async with serving(tmp_path, spender) as served:
        with pytest.raises(InvalidRequest, match="must be a Budget"):
            await spender.run(served.client, "Go.", budget={"tokens": 5})  # type: ignore[arg-type]
        options = RunOptions(budget_tokens=-1, budget_cost=Cost())
        request = pb.CreateRunRequest(agent_id="spender", input="Go.", options=options)
        error = await refused(served.runs.CreateRun(request))
        assert isinstance(error, InvalidRequest)
        assert error.violations == {
            "options.budget_tokens": "is -1, not from 1 to 1000000000000000",
            "options.budget_cost.usd_micros": "is 0, not from 1 to 1000000000000000",
        }


async def test_a_budget_of_cost_holds_only_where_the_price_is_known(tmp_path: Path) -> None:
    agent = Agent("plain", "scripted", spender.model, tools=[note])
    async with serving(tmp_path, agent) as served:
        with pytest.raises(RunFailed, match="budget of cost") as caught:
            await agent.run(served.client, "Go.", budget=Budget(cost=0.5))
        assert caught.value.reason == "price_unknown"


def test_a_result_of_an_earlier_service_has_spent_what_stands() -> None:
    stored = '{"agent_run_id": "r", "usage": {"total_tokens": 5}, "cost": 0.1}'
    result = AgentResult.model_validate_json(stored)
    assert (result.spent.total_tokens, result.spent_cost) == (5, 0.1)
