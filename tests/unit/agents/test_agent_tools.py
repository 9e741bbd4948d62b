"""Agents as tools of other agents."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from structlog.testing import capture_logs

from polos.v1.error_pb2 import FailureReason
from polos.v1.event_pb2 import Event
from polos_client.define.agent import Agent
from polos_client.define.agent_tool import AgentTool
from polos_client.define.context import WorkflowContext
from polos_client.define.scripted import call, fail, pause, script, turn, usage
from polos_client.define.tool import tool
from polos_client.errors import DefinitionError
from polos_service.runs import child_runs
from polos_service.store.sqlite import SqliteStore
from tests.support.agents import Recorder, catalog, played, started
from tests.support.flows import kinds
from tests.support.people import working
from tests.support.runs import executing
from tests.support.service import scripted, until
from tests.support.stores import all_events
from tests.unit.agents.test_approval import YES, failures, results
from tests.unit.agents.test_tool_steps import children, has, of

CHILD_FAILED = FailureReason.FAILURE_REASON_CHILD_FAILED
TOO_DEEP = FailureReason.FAILURE_REASON_TOO_DEEP


def asking(*agents: Any, **arguments: Any) -> Agent:
    """Return an agent that asks each of these once."""
    tools = Agent("tools", "scripted", script("none"), tools=agents).tools
    calls = [call(one.id, input="Well?", **arguments) for one in tools]
    return Agent(
        "asking",
        "scripted",
        script(turn(*calls, usage(input_tokens=7, output_tokens=3)), "done"),
        tools=agents,
    )


def usage_of(event: Event) -> int:
    return int(event.agent_finish.usage.total_tokens)


async def test_a_call_runs_the_agent_as_a_child_of_the_tool_s_step(store: SqliteStore) -> None:
    expert = scripted(turn("Rain.", usage(input_tokens=20, output_tokens=5)), id="weather.expert")
    model = Recorder()
    events = await played(store, asking(expert), model)
    assert results(model) == ["Rain."]
    (child,) = children(events)
    first = next(one for one in events if one.run_id == child)
    assert (first.workflow_id, first.parent_step_key) == ("weather.expert", "weather_expert")
    assert of(events, child) == [
        "agent_start",
        "step_start llm:1 1",
        "step_finish llm:1 1",
        "agent_finish",
    ]
    ends = [one for one in events if one.HasField("agent_finish")]
    assert [usage_of(one) for one in ends] == [25, 10 + 25 + 3]
    asked = model.requests[1]
    assert [part.text for part in asked.messages[-1].parts] == ["Well?"]  # type: ignore[union-attr]


async def test_an_agent_that_streams_does_so_into_its_root_s_log(store: SqliteStore) -> None:
    loud = scripted(turn("Rain ", "falls."), id="loud", stream_to_workflow=True)
    quiet = scripted("Snow.", id="quiet")
    events = await played(store, asking(loud, quiet), streaming=False)
    told = [one for one in events if one.HasField("text_delta")]
    assert {one.workflow_id for one in told} == {"loud"}
    assert "".join(one.text_delta.content for one in told) == "Rain falls."


async def test_a_failure_is_told_to_the_model(store: SqliteStore) -> None:
    broken = scripted(
        turn(fail("model_unavailable", "No such model.", retryable=False)), id="broken"
    )
    model = Recorder()
    events = await played(store, asking(broken), model)
    assert results(model) == ["Error: No such model."]
    assert failures(events)["broken"] == CHILD_FAILED
    assert kinds(events)[-1] == "agent_finish"


@pytest.mark.parametrize("arguments", [{"input": 7}, {"text": "Well?"}])
async def test_arguments_that_do_not_fit(store: SqliteStore, arguments: Any) -> None:
    expert = scripted("Rain.", id="expert")
    agent = scripted(turn(call("expert", **arguments)), "done", tools=(expert.as_tool(),))
    events = await played(store, agent)
    assert failures(events) == {"expert": FailureReason.FAILURE_REASON_TOOL_BAD_ARGUMENTS}
    assert children(events) == []


async def test_an_agent_goes_on_after_a_crash(store: SqliteStore) -> None:
    began, go_on = [], asyncio.Event()

    @tool
    async def look(ctx: WorkflowContext) -> str:
        began.append((ctx.attempt, ctx.parent_execution_id, ctx.root_workflow_id))
        await go_on.wait()
        return "rain"

    expert = scripted(turn(call("look")), "Rain.", id="expert", tools=(look,))
    agent, model = asking(expert), Recorder()
    async with working(store, agent) as person:
        await until(lambda: bool(began), "the tool")
    go_on.set()
    async with working(store, agent, model, person.run_id) as person:
        events = await person.end()
    assert began == [(1, person.run_id, "asking"), (2, person.run_id, "asking")]
    assert [one for one in kinds(events) if one.startswith("step_retry")] == ["step_retry look 2"]
    assert len(children(events)) == 1
    assert results(model) == ["Rain."]


async def test_a_cancel_reaches_the_agents(store: SqliteStore) -> None:
    slow = scripted(turn(pause()), id="slow")
    middle = scripted(turn(call("slow", input="Well?")), id="middle", tools=(slow.as_tool(),))
    async with working(store, asking(middle, slow.as_tool(id="direct"))) as person:
        await until(lambda: began(person.events, 4), "both model calls")
        await person.cancels()
        events = await person.end()
    cancelled = [one.run_id for one in events if one.HasField("run_cancelled")]
    assert sorted(cancelled) == sorted([*children(events), events[0].run_id])
    assert cancelled[-1] == events[0].run_id


async def began(events: Any, count: int) -> bool:
    return sum(one.startswith("step_start llm") for one in kinds(await events())) == count


async def test_a_call_of_an_agent_can_need_approval(store: SqliteStore) -> None:
    expert = scripted("Rain.", id="expert", description="Knows the weather")
    careful = expert.as_tool(approval="always", editable=True)
    model = Recorder()
    async with working(store, asking(careful), model, threshold=0.02) as person:
        await person.parks()
        answer = {**YES, "arguments": {"input": "Where?"}}
        wait = await person.answers("expert/approve", answer)
        await person.end()
    assert json.loads(wait.data_json)["_form"]["description"] == "Knows the weather"
    assert [part.text for part in model.requests[1].messages[-1].parts] == ["Where?"]  # type: ignore[union-attr]
    assert results(model)[0].endswith("Rain.")


async def test_agents_that_call_each_other_end_at_the_greatest_depth(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(child_runs, "MAX_DEPTH", 4)
    ping = scripted(turn(call("pong", input="Well?")), "done", id="ping")
    pong = scripted(turn(call("ping", input="Well?")), "done", id="pong", tools=(ping.as_tool(),))
    ping.tools = (pong,)
    model = Recorder()
    events = await played(store, ping, model, streaming=False)
    assert len(children(events)) == 4
    assert list(failures(events).values()) == [TOO_DEEP]
    offered = [len(one.tools) for one in model.requests if one.turn == 1]
    assert offered == [1, 1, 1, 1, 0]
    assert kinds(events)[-1] == "agent_finish"


async def test_an_agent_of_another_project_is_not_found(store: SqliteStore) -> None:
    loaded = catalog(asking(scripted("Secret.", id="hidden")), projects={"hidden": ["other"]})
    async with executing(store, loaded):
        events = await all_events(store, await started(store, loaded, agent_id="asking"))
    assert failures(events) == {"hidden": FailureReason.FAILURE_REASON_CODE_MISSING}
    assert children(events) == []


async def test_an_agent_that_is_gone_is_left_to_a_process_that_has_it(store: SqliteStore) -> None:
    stuck = scripted(turn(pause()), id="expert")
    async with working(store, asking(stuck)) as person:
        await until(lambda: began(person.events, 2), "the expert's model call")
    other = Agent("asking", "scripted", script("done"))
    with capture_logs() as logs:
        async with working(store, other, run_id=person.run_id):
            await until(lambda: any(one["event"] == "run_left" for one in logs), "the run is left")
    assert "no tool 'expert' here" in next(one["reason"] for one in logs if "reason" in one)
    helped = asking(scripted("Rain.", id="expert"))
    async with working(store, helped, run_id=person.run_id) as person:
        await until(lambda: has(person, ["step_retry llm:1 2"]), "another process")


def test_names_and_descriptions() -> None:
    plain = scripted("x", id="my.long-agent." + "x" * 80)
    (made,) = Agent("a", "scripted", script("x"), tools=[plain]).tools
    assert isinstance(made, AgentTool)
    assert made.id == ("my_long-agent_" + "x" * 80)[:64]
    assert made.description == f"Asks the agent {plain.id}, and returns its answer."
    assert made.parameters["required"] == ["input"]
    assert made.parameters["properties"]["input"]["type"] == "string"
    named = plain.as_tool(id="expert", description="Knows.")
    assert (named.id, named.description, named.agent) == ("expert", "Knows.", plain)


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        (["a.b", "a_b"], "two tools have the id 'a_b'"),
        (["llm"], "the tool id 'llm' is reserved"),
    ],
)
def test_names_that_cannot_be_used(ids: list[str], message: str) -> None:
    agents = [scripted("x", id=one) for one in ids]
    with pytest.raises(DefinitionError, match=message):
        Agent("a", "scripted", script("x"), tools=agents)
    caller = Agent("a", "scripted", script("x"))
    with pytest.raises(DefinitionError, match=message):
        caller.tools = agents
    assert caller.tools == ()


def large(size: int) -> Agent:
    """Return an agent whose definition has some bytes more than this."""
    return scripted("Hello.", id="large", system_prompt="x" * size)


def test_an_agent_that_is_too_large_for_a_child_cannot_be_a_tool() -> None:
    catalog(asking(large(480_000)))
    told = (
        r"The agent 'asking' cannot have the tool 'large'. 'large' cannot be started by a step: "
        r"its definition and its input have 50\d{4} bytes as they are stored, the limit is 491520\."
    )
    with pytest.raises(DefinitionError, match=told):
        catalog(asking(large(500_000)))
