"""Agents with an output schema as callers meet them: results, streams, children, replay."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel, create_model

from polos.testing import History, replay
from polos.v1.agent_service_pb2 import GetAgentRequest, ListAgentsRequest
from polos.v1.run_service_pb2 import GetRunRequest
from polos_client.define.agent import Agent
from polos_client.define.children import BatchWorkflowInput
from polos_client.define.context import WorkflowContext
from polos_client.define.scripted import call, say, script, turn
from polos_client.define.tool import tool
from polos_client.define.workflow import workflow
from polos_client.errors import ResultMismatch, RunFailed
from polos_client.result import AgentResult
from polos_client.typed import name_of
from polos_service.cli.output import PlainText
from tests.support.service import Served, serving


class Order(BaseModel):
    item: str
    price: Decimal


TEA = '{"item": "tea", "price": 12.10}'
ORDER = Order(item="tea", price=Decimal("12.10"))
SCHEMA = name_of(Order)


@tool
def stock(item: str) -> int:
    return 3


@tool
def sell() -> Order:
    return ORDER


selling = Agent(
    "selling",
    "scripted",
    script(turn(call("sell")), turn(call("stock", item="tea")), "Sold."),
    tools=[sell, stock],
)

ordering = Agent("ordering", "scripted", script(say([TEA[:5], TEA[5:]])), output_schema=Order)

mended = Agent(
    "mended",
    "scripted",
    script(
        turn(say(["Let me ", "look."]), call("stock", item="tea")), say(["It ", "is tea."]), TEA
    ),
    output_schema=Order,
    tools=[stock],
)

hopeless = Agent("hopeless", "scripted", script("one", "two"), output_schema=Order)

SPACED = f"\n\t {TEA}\r\n"

spaced = Agent("spaced", "scripted", script(SPACED), output_schema=Order)

several = Agent("several", "scripted", script(f"[{TEA}]"), output_schema=list[Order])


LONG = Order(item="x" * 600_000, price=Decimal(1))

long = Agent("long", "scripted", script(LONG.model_dump_json()), output_schema=Order)

FIRST = create_model("Twin", __module__=__name__, first=(int, ...))
SECOND = create_model("Twin", __module__=__name__, second=(int, ...))

twins = Agent("twins", "scripted", script('{"first": 1}'), output_schema=FIRST | SECOND)

AGENTS = (ordering, spaced, mended, hopeless, several, selling, long, twins)


@workflow(id="family")
async def family(ctx: WorkflowContext) -> Any:
    one = await ctx.step.agent_invoke_and_wait("one", ordering.with_input("Go."))
    assert one.result == ORDER
    assert str(one.result.price) == "12.10"
    assert one.result_schema == SCHEMA
    both = await ctx.step.batch_agent_invoke_and_wait(
        "both", [ordering.with_input("Go."), several.with_input("Go."), hopeless.with_input("Go.")]
    )
    assert both[0].result.result == AgentResult.model_validate(both[0].result).result == ORDER
    dumped = AgentResult.model_validate(both[0].result.model_dump())
    assert dumped.result == {"item": "tea", "price": Decimal("12.10")}
    assert both[1].result.result == [ORDER]
    by_id = await ctx.step.invoke_and_wait("by_id", "ordering", {"input": "Go."})
    assert by_id.result == ORDER
    more = [BatchWorkflowInput(id="ordering", payload={"input": "Go."})]
    assert (await ctx.step.batch_invoke_and_wait("more", more))[0].result.result == ORDER
    return [str(one.result.price), both[2].error]


asking = Agent(
    "asking", "scripted", script(turn(call("spaced", input="Go.")), "Sold."), tools=[spaced]
)


@workflow(id="spaces")
async def spaces(ctx: WorkflowContext) -> str:
    child = await ctx.step.agent_invoke_and_wait("child", spaced.with_input("Go."))
    handle = await ctx.step.agent_invoke("start", spaced.with_input("Go."))
    other = await ctx.step.wait_for_run("wait", handle)
    assert child.result == other.result == ORDER
    return str(other.result.price)


@pytest.fixture
async def served(tmp_path: Path) -> AsyncIterator[Served]:
    async with serving(tmp_path, *AGENTS, asking, family, spaces) as one:
        yield one


async def test_the_result_is_an_instance(served: Served) -> None:
    result = await ordering.run(served.client, "Go.")
    assert (result.result, result.result_schema) == (ORDER, SCHEMA)
    assert str(result.result.price) == "12.10"
    stream = await ordering.stream(served.client, "Go.")
    assert (await stream.result()).result == ORDER
    assert await stream.text() == TEA
    told = await stream.get()
    assert told["result"].result == ORDER
    assert told["output_schema_name"] == SCHEMA
    record = await served.client.get_execution(stream.id)
    assert record["result"]["result"] == json.loads(TEA)
    assert record["output_schema_name"] == SCHEMA
    ended = [one async for one in stream.events][-1]
    assert ended.data["result"]["result"] == json.loads(TEA)
    assert ended.data["result"]["result_schema"] == SCHEMA
    assert ended.proto.agent_finish.result == TEA
    listed = await several.run(served.client, "Go.")
    assert (listed.result, listed.result_schema) == ([ORDER], None)


async def test_an_answer_that_exceeds_an_event_is_an_instance(served: Served) -> None:
    stream = await long.stream(served.client, "Go.")
    assert (await stream.result()).result == LONG
    assert await stream.text() == LONG.model_dump_json()
    assert (await stream.get())["result"].result == LONG
    ended = [one async for one in stream.events][-1]
    assert (ended.data["result"]["result_step_key"], ended.proto.agent_finish.result) == (
        "llm:1",
        "",
    )


async def test_a_stream_takes_back_what_is_not_the_answer(served: Served) -> None:
    stream = await mended.stream(served.client, "Go.")
    chunks = [(str(one), one.reset) async for one in stream.text_chunks]
    assert chunks == [
        *(("Let me ", False), ("look.", False), ("", True)),
        *(("It ", False), ("is tea.", False), ("", True)),
        *chunks[6:],
    ]
    assert "".join(text for text, _ in chunks[6:]) == TEA == await stream.text()
    result = await stream.result()
    assert (result.result, result.total_steps) == (ORDER, 3)
    assert [one.tool_name for one in result.tool_results] == ["stock"]
    finishes = [one.data async for one in stream.events if one.event_type == "step_finish"]
    assert "invalid_output" not in finishes[0]
    assert finishes[2]["invalid_output"]["violations_omitted"] == 0
    (violation,) = finishes[2]["invalid_output"]["violations"]
    assert violation["path"] == ""
    assert violation["rule"].startswith("The answer is not valid JSON")


async def test_the_command_line_prints_the_answer_alone(
    served: Served, capsys: pytest.CaptureFixture[str]
) -> None:
    stream = await mended.stream(served.client, "Go.")
    with PlainText() as output:
        async for event in stream.events:
            output.show(event)
    assert capsys.readouterr().out == f"{TEA}\n"


async def test_a_run_without_a_valid_answer_fails(served: Served) -> None:
    with pytest.raises(RunFailed, match="does not conform to the output schema") as raised:
        await hopeless.run(served.client, "Go.")
    assert (raised.value.reason, raised.value.text) == ("output_invalid", "")


async def test_children_give_instances(served: Served) -> None:
    price, error = await family.run(served.client)
    assert price == "12.10"
    assert "does not conform to the output schema" in error


async def test_space_around_the_json_stays_in_the_text_alone(served: Served) -> None:
    stream = await spaced.stream(served.client, "Go.")
    assert ((await stream.result()).result, await stream.text()) == (ORDER, SPACED)
    assert await spaces.run(served.client) == "12.10"
    (sold,) = (await asking.run(served.client, "Go.")).tool_results
    assert (sold.status, sold.result, sold.result_schema) == ("completed", ORDER, SCHEMA)


async def test_programs_without_the_class_get_the_json(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("polos_client.typed.class_named", lambda _: None)
    without = Agent("ordering", "scripted", script("x"))
    with pytest.raises(ResultMismatch, match="it has none") as raised:
        await without.run(served.client, "Go.")
    assert (raised.value.result_json, raised.value.result_schema) == (TEA, SCHEMA)
    stream = await without.stream(served.client, "Go.")
    assert await stream.text() == TEA
    assert "".join([chunk async for chunk in stream.text_chunks]) == TEA
    with pytest.raises(ResultMismatch):
        await stream.result()
    assert (await stream.get())["result"].result == json.loads(TEA)


async def test_programs_with_a_changed_class_get_the_json(served: Served) -> None:
    newer = create_model("Order", __module__=__name__, item=(str, ...), vat=(int, ...))
    changed = Agent("ordering", "scripted", script("x"), output_schema=newer)
    with pytest.raises(ResultMismatch, match="1 errors; the result is") as raised:
        await changed.run(served.client, "Go.")
    assert raised.value.result_json == TEA


async def test_of_two_classes_of_one_name_the_result_is_of_the_right_one(served: Served) -> None:
    result = await twins.run(served.client, "Go.")
    assert type(result.result) is FIRST
    without = Agent("twins", "scripted", script("x"))
    assert type((await without.run(served.client, "Go.")).result) is FIRST


async def test_the_schema_is_part_of_the_agent(served: Served) -> None:
    agent = (await served.agents.GetAgent(GetAgentRequest(agent_id="ordering"))).agent
    assert json.loads(agent.output_schema_json) == Order.model_json_schema()
    assert agent.output_schema_name == SCHEMA
    listed = (await served.agents.ListAgents(ListAgentsRequest())).agents
    assert {one.agent_id: one.output_schema_name for one in listed}["several"] == f"list[{SCHEMA}]"


async def test_what_a_tool_returns_is_an_instance(served: Served) -> None:
    result = await selling.run(served.client, "Go.")
    sold, counted = result.tool_results
    assert (sold.result, sold.result_schema) == (ORDER, SCHEMA)
    assert (counted.result, counted.result_schema) == (3, None)
    told = await served.runs.GetRun(GetRunRequest(run_id=result.agent_run_id))
    assert [one.result_schema for one in told.run.tool_results] == [SCHEMA, ""]
    record = await served.client.get_execution(result.agent_run_id)
    assert record["result"]["tool_results"][0]["result"] == {"item": "tea", "price": "12.10"}


async def test_replay_judges_nothing_again(served: Served) -> None:
    for one in (ordering, mended, hopeless):
        handle = await one.invoke(served.client, {"input": "Go."})
        async for _ in served.follow(handle.id):
            pass
        history = await History.fetch(served.client, handle.id)
        assert (await replay(one, history)).ended
