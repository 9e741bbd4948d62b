"""Conversations that callers send, on their way to a provider over HTTP."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import grpc
import pytest

from polos import Agent, InvalidRequest, tool
from polos.v1 import run_service_pb2 as pb
from polos_client.calls.status import to_error
from polos_client.wire import INPUT_LIMIT
from tests.support.mock_answers import call, say
from tests.support.mock_provider import MockProvider
from tests.support.service import Served, query, serving

PIXEL = "data:image/png;base64," + base64.b64encode(b"\x89PNG\r\n\x1a\n" * 10).decode()

SECRET = "signature-of-a-thought"
"""Provider state, which no reader may see."""

CONVERSATION: list[dict[str, Any]] = [
    {"role": "developer", "content": "Be brief."},
    {"role": "user", "name": "Kim", "content": "What is the weather?"},
    {
        "role": "assistant",
        "content": "I look.",
        "reasoning_content": "It asks for the weather.",
        "reasoning_details": [{"type": "reasoning.encrypted", "data": SECRET}],
        "tool_calls": [
            {
                "id": "call_1",
                "type": "function",
                "function": {"name": "get_weather", "arguments": '{"city": "Oslo"}'},
                "extra_content": {"google": {"thought_signature": SECRET}},
            }
        ],
    },
    {"role": "tool", "tool_call_id": "call_1", "content": "rain"},
    {"role": "assistant", "content": "Rain."},
    {
        "role": "user",
        "content": [
            {"type": "text", "text": "And here?"},
            {
                "type": "image_url",
                "image_url": {"url": "https://example.org/sky.png", "detail": "low"},
            },
            {"type": "image_url", "image_url": {"url": PIXEL}},
            {
                "type": "file",
                "file": {"filename": "a.pdf", "file_data": "data:application/pdf;base64,JVBERi0="},
            },
        ],
    },
]


@tool
async def jot(text: str) -> str:
    return text.upper()


def agent_at(provider: MockProvider) -> Agent:
    return Agent("helper", "openai", "mock", tools=[jot], provider_base_url=provider.url)


async def test_a_conversation_reaches_the_provider_as_its_caller_sent_it(
    tmp_path: Path, provider: MockProvider
) -> None:
    agent = agent_at(provider)
    provider.reply(call("jot", {"text": "sky"}))
    provider.reply(say("Clear."))
    async with serving(tmp_path, agent) as served:
        result = await agent.run(served.client, CONVERSATION)
        assert result.result == "Clear."
        await assert_hidden(served, result.agent_run_id)
    first, second = (request.body["messages"] for request in provider.requests)
    assert first == CONVERSATION
    assert second[: len(first)] == first
    assert [message["role"] for message in second[len(first) :]] == ["assistant", "tool"]


async def assert_hidden(served: Served, run_id: str) -> None:
    """Assert that readers see neither the conversation nor the state of the provider in it."""
    log = b"".join([piece async for piece in served.raw(run_id)])
    run = await served.runs.GetRun(pb.GetRunRequest(run_id=run_id))
    for seen in (log, run.SerializeToString()):
        assert SECRET.encode() not in seen
        assert b"sky.png" not in seen
    (definition,) = query(served.path, "SELECT definition FROM runs")[0]
    assert SECRET in json.dumps(json.loads(definition)["messages"])


async def test_an_answer_that_only_calls_a_tool_goes_back_with_an_empty_text(
    tmp_path: Path, provider: MockProvider
) -> None:
    agent = agent_at(provider)
    provider.reply(call("jot", '{"text": '))
    provider.reply(say("Sorry."))
    async with serving(tmp_path, agent) as served:
        result = await agent.run(served.client, "Note the sky.")
    assert result.tool_results[0].error is not None
    answer, told = provider.requests[1].body["messages"][-2:]
    assert answer["content"] == ""
    assert json.loads(answer["tool_calls"][0]["function"]["arguments"]) == {"input": '{"text": '}
    assert told["content"].startswith("Error: the arguments are not valid JSON")


WRONG: dict[str, tuple[list[Any], dict[str, str]]] = {
    "an image": (
        [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "sky.png"}}]}],
        {
            "input_messages_json[0].content[0].image_url.url": "is 'sky.png'; allowed: an http:// "
            "or https:// URL, or data:image/...;base64,..."
        },
    ),
    "two messages": (
        [{"role": "user", "content": "Hi"}, {"role": "bot", "content": ""}, {"role": "user"}],
        {
            "input_messages_json[1].role": "is 'bot'; allowed: system, developer, user, "
            "assistant, tool, function",
            "input_messages_json[2].content": "is missing; allowed: a string or an array of parts",
        },
    ),
    "a result of no call": (
        [{"role": "tool", "tool_call_id": "a", "content": "b"}],
        {
            "input_messages_json[0].tool_call_id": "is 'a'; no unanswered call in the assistant "
            "message before it has this id"
        },
    ),
}


@pytest.mark.parametrize("name", WRONG)
async def test_a_wrong_conversation_starts_nothing_and_is_refused_by_its_fields(
    tmp_path: Path, provider: MockProvider, name: str
) -> None:
    form, expected = WRONG[name]
    agent = agent_at(provider)
    async with serving(tmp_path, agent) as served:
        request = pb.CreateRunRequest(agent_id="helper", input_messages_json=json.dumps(form))
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await served.runs.CreateRun(request)
        assert query(served.path, "SELECT count(*) FROM runs") == [(0,)]
    error = to_error(refused.value, "the service")
    assert isinstance(error, InvalidRequest)
    assert error.violations == expected
    assert not provider.requests


async def test_an_image_that_is_too_large_is_refused_with_the_way_out(
    tmp_path: Path, provider: MockProvider
) -> None:
    url = "data:image/png;base64," + "A" * INPUT_LIMIT
    form = [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": url}}]}]
    agent = agent_at(provider)
    hint = "inline images and files count, so give their URL instead"
    async with serving(tmp_path, agent) as served:
        with pytest.raises(InvalidRequest, match=hint):
            await agent.run(served.client, form)
        request = pb.CreateRunRequest(agent_id="helper", input_messages_json=json.dumps(form))
        with pytest.raises(grpc.aio.AioRpcError, match=hint):
            await served.runs.CreateRun(request)
