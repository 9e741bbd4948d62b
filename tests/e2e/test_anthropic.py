"""An agent of the provider `anthropic`, end to end: service, log and client."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from polos import PolosClient
from tests.e2e.stage import ASSISTANT, notes, service
from tests.support.mock_answers import hold, status
from tests.support.mock_anthropic import Block, MockAnthropic, call, finish, say, start, think
from tests.support.process import ServiceProcess
from tests.support.reader import Events, assert_whole, kinds, texts

KEY = "planted-key-0123456789abcdef"

SIGNED = {"type": "thinking", "thinking": "Milk first.", "signature": "c2lnbmVk"}
HIDDEN = {"type": "redacted_thinking", "data": "aGlkZGVu"}
SEARCHED = {"type": "web_search_tool_result", "tool_use_id": "srvtoolu_1", "content": []}


@pytest.fixture
async def provider() -> AsyncIterator[MockAnthropic]:
    """Give a provider of the Messages API that answers what a test tells it to."""
    async with MockAnthropic() as provider:
        yield provider


def thinking(folder: Path, provider: MockAnthropic) -> ServiceProcess:
    """Return the service of an agent that thinks before it answers."""
    polos = service(
        folder, provider, MODEL_URL="", ANTHROPIC_BASE_URL=provider.url, ANTHROPIC_API_KEY=KEY
    )
    app = folder / "app.py"
    kwargs = 'provider_kwargs={"thinking": {"type": "enabled", "budget_tokens": 2048}},'
    app.write_text(
        app.read_text()
        .replace('provider="openai"', 'provider="anthropic"')
        .replace("    tools=[", f"    {kwargs}\n    temperature=0.5,\n    tools=[")
    )
    return polos


def milk(provider: MockAnthropic) -> None:
    """Let the model think, search, say something, and call tools twice at once."""
    provider.reply(
        start(cache_read_input_tokens=100),
        think("Milk", " first.", signature="c2lnbmVk"),
        Block(HIDDEN),
        Block(SEARCHED),
        say("Noting."),
        call("jot", {"text": "milk"}, call_id="toolu_a"),
        call("jot", {"text": "bread"}, call_id="toolu_b"),
    )


def assert_goes_back(turns: list[dict[str, Any]]) -> None:
    """Assert that a request has the answer as it came, and the results behind it."""
    asked, answered, told = turns
    assert asked == {"role": "user", "content": [{"type": "text", "text": "Note milk"}]}
    assert answered["role"] == "assistant"
    assert answered["content"] == [
        SIGNED,
        HIDDEN,
        SEARCHED,
        {"type": "text", "text": "Noting."},
        {"type": "tool_use", "id": "toolu_a", "name": "jot", "input": {"text": "milk"}},
        {"type": "tool_use", "id": "toolu_b", "name": "jot", "input": {"text": "bread"}},
    ]
    assert told["role"] == "user"
    assert [
        (one["type"], one["tool_use_id"], one["content"][0]["text"]) for one in told["content"]
    ] == [("tool_result", "toolu_a", "MILK"), ("tool_result", "toolu_b", "BREAD")]


async def test_a_model_thinks_calls_tools_and_gets_its_reasoning_back(
    tmp_path: Path, provider: MockAnthropic
) -> None:
    milk(provider)
    provider.reply(start(), say("No", "ted."), finish(output_tokens=2))
    async with thinking(tmp_path, provider) as polos, PolosClient(polos.address) as client:
        stream = await ASSISTANT.stream(client, "Note milk")
        log = [event async for event in stream.events]
        result = await stream.result()
    assert_whole(log)
    assert texts(log) == ["Noting.", "No", "ted."]
    thoughts = [event.data["content"] for event in log if event.event_type == "reasoning_delta"]
    assert "".join(thoughts) == "Milk first."
    assert result.result == "Noted."
    assert (result.usage.input_tokens, result.usage.output_tokens) == (114, 5)
    assert result.usage.cache_read_input_tokens == 100
    first, second = provider.requests
    assert first.path == "/v1/messages"
    assert first.headers["x-api-key"] == KEY
    assert first.body["system"] == [{"type": "text", "text": "You are precise."}]
    assert first.body["thinking"] == {"type": "enabled", "budget_tokens": 2048}
    assert "temperature" not in first.body
    assert [tool["name"] for tool in first.body["tools"]] == ["jot", "wait", "block", "resist"]
    assert_goes_back(second.body["messages"])
    told = "".join(str(event.data) + str(event.proto) for event in log)
    assert not any(secret in told for secret in (KEY, SIGNED["signature"], HIDDEN["data"]))
    assert KEY not in polos.output


async def test_reasoning_goes_back_after_a_kill_as_it_came(
    tmp_path: Path, provider: MockAnthropic
) -> None:
    milk(provider)
    provider.reply(start(), say("Half"), hold(asyncio.Event()))
    async with thinking(tmp_path, provider) as polos, PolosClient(polos.address) as client:
        stream = await ASSISTANT.stream(client, "Note milk")
        async with Events(stream.events) as read:
            await read.said("Half")
            await polos.kill()
            provider.reply(start(), say("Whole"))
            await polos.start()
            log = await read.all()
    assert_whole(log)
    before, again = provider.requests[1:]
    assert again.body == before.body
    assert_goes_back(again.body["messages"])
    assert len(notes(tmp_path)) == 2
    assert log[-1].data["result"]["result"] == "Whole"


async def test_an_overloaded_provider_is_asked_again(
    tmp_path: Path, provider: MockAnthropic
) -> None:
    overloaded = {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}
    provider.reply(status(529, overloaded, retry_after_ms="20"))
    provider.reply(start(), say("Here"))
    async with thinking(tmp_path, provider) as polos, PolosClient(polos.address) as client:
        stream = await ASSISTANT.stream(client, "Go")
        log = [event async for event in stream.events]
    assert len(provider.requests) == 2
    assert kinds(log) == ["agent_start", "step_start", "text_delta", "step_finish", "agent_finish"]


async def test_cancelling_a_run_closes_the_connection(
    tmp_path: Path, provider: MockAnthropic
) -> None:
    provider.reply(start(), say("Half"), hold(asyncio.Event()))
    async with thinking(tmp_path, provider) as polos, PolosClient(polos.address) as client:
        stream = await ASSISTANT.stream(client, "Go")
        async with Events(stream.events) as read:
            await read.said("Half")
            await stream.cancel()
            log = await read.all()
        await asyncio.wait_for(provider.requests[0].disconnected.wait(), 30)
    assert kinds(log)[-1] == "run_cancelled"
