"""An agent at a server of the Responses API, end to end: service, log and client."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from polos import InvalidRequest, PolosClient
from tests.e2e.stage import ASSISTANT, notes, service
from tests.support.mock_answers import hold, status
from tests.support.mock_provider import MockProvider
from tests.support.mock_responses import call, events, item, responses, say, sent, think
from tests.support.process import ServiceProcess
from tests.support.reader import Events, assert_whole, texts

SEARCH = item(
    id="ws_1", type="web_search_call", status="completed", action={"type": "search", "query": "q"}
)

NOTING = (
    think("Milk is noted first.", "Then bread."),
    SEARCH,
    say("Noting.", phase="commentary"),
    call("jot", {"text": "milk"}, pieces=5),
    call("jot", {"text": "bréad"}, call_id="call_b", item_id="fc_2"),
)
"""An answer that asks for two notes."""


def at_responses(folder: Path, provider: MockProvider) -> ServiceProcess:
    return service(folder, provider, MODEL_API="responses")


def went_back(provider: MockProvider) -> list[dict[str, Any]]:
    """Return the items of the last request behind the system prompt and the input."""
    items: list[dict[str, Any]] = provider.requests[-1].body["input"][2:]
    return items


async def test_tools_are_called_and_what_the_model_said_goes_back(
    tmp_path: Path, provider: MockProvider
) -> None:
    provider.reply(responses(*NOTING))
    provider.reply(responses(think(), say("Not", "ed.", phase="final_answer")))
    async with at_responses(tmp_path, provider) as polos, PolosClient(polos.address) as client:
        stream = await ASSISTANT.stream(client, "Note milk and bread")
        log = [event async for event in stream.events]
        result = await stream.result()
    assert_whole(log)
    assert texts(log) == ["Noting.", "Not", "ed."]
    assert result.result == "Noted."
    assert len(notes(tmp_path)) == 2
    assert result.usage.total_tokens == 20
    assert provider.requests[0].path == "/v1/responses"
    assert [one["content"][0]["text"] for one in provider.requests[0].body["input"]] == [
        "You are precise.",
        "Note milk and bread",
    ]
    assert went_back(provider) == [
        *(one.done for one in NOTING),
        {"type": "function_call_output", "call_id": "call_a", "output": "MILK"},
        {"type": "function_call_output", "call_id": "call_b", "output": "BRÉAD"},
    ]
    thoughts = [event.data["content"] for event in log if event.event_type == "reasoning_delta"]
    assert "".join(thoughts) == "Milk is noted first.\n\nThen bread."


async def test_after_a_kill_the_same_goes_back(tmp_path: Path, provider: MockProvider) -> None:
    provider.reply(responses(*NOTING))
    half = events(say("Half", " of it"))[:5]
    provider.reply(sent(half, ends=False), hold(asyncio.Event()))
    async with at_responses(tmp_path, provider) as polos, PolosClient(polos.address) as client:
        stream = await ASSISTANT.stream(client, "Note milk and bread")
        async with Events(stream.events) as read:
            await read.said("Half")
            before = provider.requests[-1].body
            await polos.kill()
            provider.reply(responses(say("Noted.")))
            await polos.start()
            log = await read.all()
    assert texts(log) == ["Noting.", "Half", "Noted."]
    assert log[-1].data["result"]["result"] == "Noted."
    assert provider.requests[-1].body == before
    assert went_back(provider)[: len(NOTING)] == [one.done for one in NOTING]
    assert len(notes(tmp_path)) == 2


async def test_an_answer_without_an_end_is_taken_back_and_asked_for_again(
    tmp_path: Path, provider: MockProvider
) -> None:
    provider.reply(sent(events(say("Half"))[:-1]))
    provider.reply(responses(say("Whole")))
    async with at_responses(tmp_path, provider) as polos, PolosClient(polos.address) as client:
        stream = await ASSISTANT.stream(client, "Go")
        log = [event async for event in stream.events]
        assert await stream.text() == "Whole"
    assert texts(log) == ["Half", "Whole"]
    assert len(provider.requests) == 2


async def test_a_model_that_does_not_reason_is_asked_without_its_reasoning(
    tmp_path: Path, provider: MockProvider
) -> None:
    error = {
        "message": "Encrypted content is not supported with this model.",
        "type": "invalid_request_error",
        "param": "include",
        "code": None,
    }
    provider.reply(status(400, {"error": error}))
    provider.reply(responses(say("Hello")))
    async with at_responses(tmp_path, provider) as polos, PolosClient(polos.address) as client:
        stream = await ASSISTANT.stream(client, "Go")
        assert await stream.text() == "Hello"
    asked, again = (request.body for request in provider.requests)
    assert asked.pop("include") == ["reasoning.encrypted_content"]
    assert asked == again


async def test_a_run_may_set_what_the_api_has(tmp_path: Path, provider: MockProvider) -> None:
    provider.reply(responses(say("Hello")))
    async with at_responses(tmp_path, provider) as polos, PolosClient(polos.address) as client:
        with pytest.raises(InvalidRequest, match="is not a parameter of the Responses API"):
            await ASSISTANT.stream(client, "Go", seed=1)
        stream = await ASSISTANT.stream(client, "Go", max_tokens=5, reasoning_effort="low")
        await stream.text()
    (request,) = provider.requests
    assert request.body["max_output_tokens"] == 5
    assert request.body["reasoning"] == {"effort": "low"}
