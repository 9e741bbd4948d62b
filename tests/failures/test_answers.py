"""Answers that are odd and whole, the whole way: real HTTP, service, store, gRPC and client.

A truncated answer is never taken for a whole one, and tells why it ended; what the model gets
wrong it is told.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from pathlib import Path

import pytest

from polos import Agent, tool
from polos.v1.run_pb2 import RunState
from tests.failures.scene import IMPATIENT, assert_stored, streaming
from tests.support.mock_answers import Part, call, chunk, finish, hold, raw, say, tokens
from tests.support.mock_provider import MockProvider
from tests.support.reader import kinds, texts


@dataclass(frozen=True)
class Ending:
    """An answer that is odd and whole: what the provider says, and what the run ends with."""

    reply: tuple[Part, ...]
    text: str
    finish_reason: str

    @property
    def kinds(self) -> list[str]:
        said = ["text_delta"] if self.text else []
        return ["agent_start", "step_start", *said, "step_finish", "agent_finish"]


USED = tokens(7, 3)
SMOOTH = ["agent_start", "step_start", "text_delta", "step_finish", "agent_finish"]
ENDINGS = {
    "empty": Ending((finish("stop", usage=USED),), "", "stop"),
    "empty chunks": Ending((say("", ""), finish("stop", usage=USED)), "", "stop"),
    "length": Ending((say("Half"), finish("length", usage=USED)), "Half", "length"),
    "length, empty": Ending((finish("length", usage=USED),), "", "length"),
    "content_filter": Ending(
        (say("Half"), finish("content_filter", usage=USED)), "Half", "content_filter"
    ),
    "content_filter, empty": Ending((finish("content_filter", usage=USED),), "", "content_filter"),
}


@pytest.mark.parametrize("name", ENDINGS)
async def test_an_odd_answer_that_is_whole_is_a_result_with_its_reason(
    tmp_path: Path, provider: MockProvider, name: str
) -> None:
    ending = ENDINGS[name]
    provider.reply(*ending.reply)
    async with streaming(tmp_path, provider.url) as (served, stream, log):
        assert kinds(log) == ending.kinds
        assert texts(log) == ([ending.text] if ending.text else [])
        assert await stream.text() == ending.text
        result = await stream.result()
        assert (result.result, result.finish_reason) == (ending.text, ending.finish_reason)
        assert result.usage.total_tokens == 10
        assert log[-1].data["result"]["finish_reason"] == ending.finish_reason
        assert_stored(served, stream.id, log, RunState.RUN_STATE_COMPLETED)
    assert len(provider.requests) == 1


async def test_a_provider_that_stalls_after_its_finish_reason_has_said_all(
    tmp_path: Path, provider: MockProvider
) -> None:
    provider.reply(say("Whole."), raw(chunk({}, "stop")), hold(asyncio.Event()))
    async with streaming(tmp_path, provider.url, deadlines=IMPATIENT) as (served, stream, log):
        assert kinds(log) == SMOOTH
        assert await stream.text() == "Whole."
        assert_stored(served, stream.id, log, RunState.RUN_STATE_COMPLETED)
    assert len(provider.requests) == 1


@pytest.mark.parametrize("arguments", ['{"a": 1', "a=1", '{"a": one}'])
async def test_arguments_that_are_no_json_are_told_to_the_model_and_the_run_goes_on(
    tmp_path: Path, provider: MockProvider, arguments: str
) -> None:
    called: list[int] = []

    @tool
    def count(a: int) -> None:
        called.append(a)

    agent = Agent("helper", "openai", "mock", tools=[count])
    provider.reply(call("count", arguments))
    provider.reply(say("Sorry."))
    async with streaming(tmp_path, provider.url, agent) as (served, stream, log):
        asking = ["step_start", "tool_call", "step_finish"]
        using = ["step_start", "step_finish"]
        saying = ["step_start", "text_delta", "step_finish", "agent_finish"]
        assert kinds(log) == ["agent_start", *asking, *using, *saying]
        result = await stream.result()
        assert_stored(served, stream.id, log, RunState.RUN_STATE_COMPLETED)
    (used,) = result.tool_results
    assert (used.status, used.input, used.result) == ("failed", arguments, None)
    assert result.result == "Sorry."
    assert used.error is not None
    assert used.error.startswith("the arguments are not valid JSON: ")
    answer = provider.requests[1].body["messages"][-1]
    assert answer == {
        "role": "tool",
        "tool_call_id": "call_a",
        "content": f"Error: {used.error}",
    }
    assert called == []


async def test_a_tool_call_that_the_length_limit_cuts_is_not_made(
    tmp_path: Path, provider: MockProvider
) -> None:
    called: list[int] = []

    @tool
    def count(a: int) -> None:
        called.append(a)

    agent = Agent("helper", "openai", "mock", tools=[count])
    provider.reply(call("count", '{"a": 1'), finish("length", usage=USED))
    async with streaming(tmp_path, provider.url, agent) as (served, stream, log):
        assert kinds(log) == ["agent_start", "step_start", "step_finish", "agent_finish"]
        result = await stream.result()
        assert (result.result, result.finish_reason) == ("", "length")
        assert_stored(served, stream.id, log, RunState.RUN_STATE_COMPLETED)
    assert called == []
