"""The agent loop: the events of a run, and what the model is told."""

from __future__ import annotations

import asyncio
import json

import pytest

from polos.v1.error_pb2 import FailureReason
from polos.v1.event_pb2 import AgentFinish, Cost, Event, FinishReason, Usage
from polos_client.define.agent import Agent
from polos_client.define.context import WorkflowContext
from polos_client.define.scripted import call, fail, finish, pause, say, script, turn, usage
from polos_client.define.tool import tool
from polos_service.agents.loop import PARALLEL_TOOLS
from polos_service.models import ModelAnswer
from polos_service.models.messages import Call, Message, Result, Text
from polos_service.store.sqlite import SqliteStore
from tests.support.agents import Recorder, played
from tests.support.runs import kinds

STOP = FinishReason.FINISH_REASON_STOP
SUFFIXES = ("", ":2", ":3", ":4")


@tool
def add(a: int, b: int) -> int:
    return a + b


def ending(events: list[Event]) -> AgentFinish:
    assert events[-1].HasField("agent_finish"), events[-1]
    return events[-1].agent_finish


def text_of(events: list[Event]) -> str:
    return "".join(event.text_delta.content for event in events)


def told_in(message: Message) -> str:
    """Return what the model is told in a message with the result of one tool."""
    (result,) = message.parts
    assert isinstance(result, Result)
    return "".join(part.text for part in result.content if isinstance(part, Text))


async def test_a_plain_answer(store: SqliteStore) -> None:
    agent = Agent("a", "scripted", script(say(["Hel", "lo"])), temperature=0.5)
    events = await played(store, agent)
    assert kinds(events) == [
        "agent_start",
        "step_start llm:1/1",
        "text_delta llm:1/1",
        "text_delta llm:1/1",
        "step_finish llm:1/1",
        "agent_finish",
    ]
    assert text_of(events) == "Hello"
    begun = events[0].agent_start
    assert (begun.agent_id, begun.provider, begun.model) == ("a", "scripted", "script")
    assert (begun.temperature, begun.streaming) == (0.5, True)
    assert begun.stop_conditions == ["max_steps"]
    assert json.loads(events[-2].step_finish.result_json) == {"content": "Hello", "tool_calls": []}
    assert events[-2].step_finish.finish_reason == STOP
    end = ending(events)
    assert (end.result, end.finish_reason, end.stop_condition) == ("Hello", STOP, "")
    assert end.total_steps == 1
    assert end.HasField("duration")
    assert not end.HasField("cost")


async def test_a_tool_is_called_and_the_model_sees_its_result(store: SqliteStore) -> None:
    model = Recorder()
    text = script(turn(say(["Sum: "]), call("add", a=1, b=2)), "three")
    agent = Agent("a", "scripted", text, system_prompt="Be brief.", tools=[add])
    events = await played(store, agent, model)
    assert kinds(events) == [
        "agent_start",
        "step_start llm:1/1",
        "text_delta llm:1/1",
        "tool_call llm:1/1",
        "step_finish llm:1/1",
        "step_start add/1",
        "step_finish add/1",
        "step_start llm:2/1",
        "text_delta llm:2/1",
        "step_finish llm:2/1",
        "agent_finish",
    ]
    assert ending(events).result == "three"
    assert [message.role for message in model.conversation] == [
        "system",
        "user",
        "assistant",
        "tool",
    ]
    assert model.conversation[2].parts == (
        Text(text="Sum: "),
        Call(id="call_1_1", name="add", arguments_json='{"a": 1, "b": 2}'),
    )
    assert told_in(model.conversation[3]) == "3"
    (offered,) = model.requests[0].tools
    assert offered["name"] == "add"


async def test_tools_run_in_parallel_and_their_results_keep_their_order(
    store: SqliteStore,
) -> None:
    met = asyncio.Barrier(2)

    @tool
    async def meet(name: str) -> str:
        await met.wait()
        return name

    model = Recorder()
    calls = turn(call("meet", name="x"), call("meet", name="y"))
    agent = Agent("a", "scripted", script(calls, "both"), tools=[meet])
    events = await played(store, agent, model)
    assert kinds(events)[5:7] == ["step_start meet/1", "step_start meet:2/1"]
    assert ending(events).result == "both"
    assert [told_in(message) for message in model.conversation[-2:]] == ["x", "y"]


async def test_a_tool_call_begins_when_its_tool_does(store: SqliteStore) -> None:
    """A call that waits for a place would otherwise be taken for one that was interrupted."""
    working, all_work = [0], asyncio.Event()

    @tool
    async def work() -> None:
        working[0] += 1
        if working[0] == PARALLEL_TOOLS:
            all_work.set()
        await all_work.wait()

    calls = turn(*(call("work") for _ in range(PARALLEL_TOOLS + 5)))
    events = await played(store, Agent("a", "scripted", script(calls, "ok"), tools=[work]))
    tools = [kind.split()[0] for kind in kinds(events) if " work" in kind]
    assert tools.index("step_finish") == PARALLEL_TOOLS
    assert tools.count("step_finish") == PARALLEL_TOOLS + 5


async def test_a_run_that_does_not_stream_has_no_deltas(store: SqliteStore) -> None:
    agent = Agent("a", "scripted", script(turn("Hm", call("add", a=1, b=2)), "ok"), tools=[add])
    events = await played(store, agent, streaming=False)
    assert {kind.split()[0] for kind in kinds(events)} == {
        "agent_start",
        "step_start",
        "step_finish",
        "agent_finish",
    }
    assert ending(events).result == "ok"
    assert not events[0].agent_start.streaming


async def test_a_failed_tool_is_seen_by_the_model_and_fails_no_run(store: SqliteStore) -> None:
    @tool
    def broken() -> None:
        raise ValueError("no such city")

    model = Recorder()
    calls = turn(call("broken"), call("add", raw="{"), call("gone"), call("add", a=2, b=3))
    agent = Agent("a", "scripted", script(calls, "sorry"), tools=[broken, add])
    events = await played(store, agent, model)
    assert ending(events).result == "sorry"
    told = [told_in(message) for message in model.conversation[-4:]]
    assert told[0] == "Error: The tool broken raised ValueError: no such city"
    assert told[1].startswith("Error: the arguments are not valid JSON")
    assert told[2] == "Error: There is no tool 'gone'. Tools: add, broken."
    assert told[3] == "5"
    failures = {
        event.step_finish.step_key: event.step_finish.failure.reason
        for event in events
        if event.step_finish.HasField("failure")
    }
    assert failures == {
        "broken": FailureReason.FAILURE_REASON_TOOL_FAILED,
        "add": FailureReason.FAILURE_REASON_TOOL_BAD_ARGUMENTS,
        "unknown_tool": FailureReason.FAILURE_REASON_TOOL_NOT_FOUND,
    }


@pytest.mark.parametrize("size", [480 * 1024 - 2, 480 * 1024 - 1])
async def test_a_tool_result_over_480_kib_is_a_failed_result(store: SqliteStore, size: int) -> None:
    @tool
    def large() -> str:
        return "x" * size

    model = Recorder()
    agent = Agent("a", "scripted", script(call("large"), "ok"), tools=[large])
    assert ending(await played(store, agent, model)).result == "ok"
    told = told_in(model.conversation[-1])
    assert told.startswith("Error: The output has 491521 bytes") == (size == 480 * 1024 - 1)
    assert (len(told) == size) == (size == 480 * 1024 - 2)


async def test_twenty_large_results_end_properly(store: SqliteStore) -> None:
    @tool
    def large() -> str:
        return "x" * 470_000

    agent = Agent("a", "scripted", script(turn(*[call("large")] * 20), "ok"), tools=[large])
    assert ending(await played(store, agent)).result == "ok"


async def test_a_result_that_is_no_finite_number_fails_no_run(store: SqliteStore) -> None:
    @tool
    def mean() -> float:
        return float("nan")

    agent = Agent("a", "scripted", script(call("mean"), "ok"), tools=[mean])
    assert ending(await played(store, agent)).result == "ok"


async def test_a_large_integer_reaches_the_model_as_it_is(store: SqliteStore) -> None:
    @tool
    def big() -> int:
        return 2**70 + 1

    model = Recorder()
    agent = Agent("a", "scripted", script(call("big"), "ok"), tools=[big])
    await played(store, agent, model)
    assert told_in(model.conversation[-1]) == str(2**70 + 1)


async def test_a_truncated_answer_calls_no_tools(store: SqliteStore) -> None:
    calls: list[int] = []

    @tool
    def count() -> None:
        calls.append(1)

    text = script(turn("Let me", call("count"), finish("length")))
    end = ending(await played(store, Agent("a", "scripted", text, tools=[count])))
    assert (end.result, end.finish_reason) == ("Let me", FinishReason.FINISH_REASON_LENGTH)
    assert calls == []


async def test_a_model_that_fails_for_good_fails_the_run(store: SqliteStore) -> None:
    text = script(turn("Let", fail("model_authentication", "wrong key", retryable=False)))
    events = await played(store, Agent("a", "scripted", text))
    error = events[-1].error
    assert error.reason == FailureReason.FAILURE_REASON_MODEL_AUTHENTICATION
    assert (error.message, error.retryable, error.total_steps) == ("wrong key", False, 0)


async def test_a_retried_model_call_takes_back_what_it_said(store: SqliteStore) -> None:
    text = script(turn("wrong ", fail(), retried=["right"]))
    events = await played(store, Agent("a", "scripted", text))
    assert "step_retry llm:1/2" in kinds(events)
    assert ending(events).result == "right"
    assert text_of([e for e in events if e.text_delta.attempt == 2]) == "right"


async def test_usage_and_cost_are_those_of_all_model_calls(store: SqliteStore) -> None:
    tokens = Usage(input_tokens=10, output_tokens=5, total_tokens=15, cache_read_input_tokens=3)
    model = Recorder(
        answers={
            2: ModelAnswer(
                parts=[Text(text="done")],
                finish_reason=STOP,
                usage=tokens,
                cost=Cost(usd_micros=40),
            )
        }
    )
    first = turn(call("add", a=1, b=1), usage(input_tokens=1, output_tokens=2))
    agent = Agent("a", "scripted", script(first, "done"), tools=[add])
    end = ending(await played(store, agent, model))
    assert end.usage == Usage(
        input_tokens=11, output_tokens=7, total_tokens=18, cache_read_input_tokens=3
    )
    assert not end.HasField("cost"), "that of the first call is unknown"
    assert end.total_steps == 2
    model.answers = {1: model.answers[2]}
    end = ending(await played(store, agent, model))
    assert end.cost == Cost(usd_micros=40)


async def test_the_provider_s_state_goes_to_the_next_call_only(store: SqliteStore) -> None:
    first = ModelAnswer(
        parts=[],
        finish_reason=FinishReason.FINISH_REASON_TOOL_CALLS,
        state={"scripted": {"signature": "hidden"}},
    )
    model = Recorder(answers={1: first})
    events = await played(store, Agent("a", "scripted", script("", "ok")), model)
    assert model.conversation[-1].state == {"scripted": {"signature": "hidden"}}
    assert "hidden" not in str(events)


@pytest.mark.parametrize("name", ["llm:1", "llm", "a:b", "", "x" * 300, "add:2", "unknown_tool"])
async def test_a_name_that_a_model_makes_up_is_no_step_s_key(store: SqliteStore, name: str) -> None:
    calls = turn(call("add", a=1, b=1), call("add", a=1, b=2), call(name), call(name))
    agent = Agent("a", "scripted", script(calls, calls, "ok"), tools=[add])
    events = await played(store, agent)
    assert ending(events).result == "ok"
    starts = [event.step_start for event in events if event.HasField("step_start")]
    assert sorted(start.step_key for start in starts) == sorted(
        ["llm:1", "llm:2", "llm:3"]
        + [f"{tool}{suffix}" for tool in ("add", "unknown_tool") for suffix in SUFFIXES]
    )
    assert [one.tool_call.name for one in starts if "unknown" in one.step_key] == [name[:256]] * 4


async def test_a_tool_knows_its_step_and_cannot_change_the_run_s_state(store: SqliteStore) -> None:
    seen: list[WorkflowContext] = []

    @tool
    def look(ctx: WorkflowContext) -> None:
        seen.append(ctx)
        ctx.initial_state["n"].append(1)

    agent = Agent("a", "scripted", script(turn(call("look"), call("look")), "ok"), tools=[look])
    options = {"initial_state_json": '{"n": []}', "session_id": "s", "user_id": "u"}
    events = await played(store, agent, options=options)
    run_id = events[0].run_id
    seen.sort(key=lambda ctx: ctx.step_key)
    assert [ctx.step_key for ctx in seen] == ["look", "look:2"]
    assert [ctx.idempotency_key for ctx in seen] == [f"{run_id}/look", f"{run_id}/look:2"]
    assert [ctx.initial_state for ctx in seen] == [{"n": [1]}] * 2
    assert {(ctx.workflow_id, ctx.execution_id, ctx.session_id, ctx.user_id, ctx.attempt)
            for ctx in seen} == {("a", run_id, "s", "u", 1)}  # fmt: skip


async def test_a_step_s_start_is_durable_before_its_tool_runs(store: SqliteStore) -> None:
    seen: list[int] = []

    @tool
    async def look(ctx: WorkflowContext) -> None:
        seen.append((await store.get("default", ctx.execution_id)).latest)

    agent = Agent("a", "scripted", script(turn(call("look"), pause(0)), "ok"), tools=[look])
    events = await played(store, agent)
    starts = [e.sequence for e in events if e.step_start.step_key == "look"]
    assert seen == starts
