"""The provider `openai` over real HTTP: whole answers, and what is asked of the provider."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from polos.v1.event_pb2 import FinishReason, Usage
from polos_service.models import ModelAnswer, ModelRequest
from polos_service.models.messages import Reasoning, Text
from polos_service.models.remote import Remote
from tests.support.mock_answers import Part, call, chunk, delta, finish, hold, raw, say, tokens
from tests.support.mock_provider import MockProvider
from tests.support.models import Heard, ask


async def test_text_is_emitted_in_its_pieces_and_answered_whole(
    provider: MockProvider, model: Remote
) -> None:
    provider.reply(say("Hello", " world"))
    answer, heard = await ask(model)
    assert heard == ["Hello", " world"]
    assert answer == ModelAnswer(
        parts=[Text(text="Hello world")],
        finish_reason=FinishReason.FINISH_REASON_STOP,
        usage=Usage(
            input_tokens=7,
            output_tokens=3,
            total_tokens=10,
        ),
    )


async def test_a_piece_is_emitted_before_the_next_one_is_sent(
    provider: MockProvider, model: Remote
) -> None:
    spoken = asyncio.Event()

    class Speaking(Heard):
        async def text(self, piece: str) -> None:
            await super().text(piece)
            spoken.set()  # the provider goes on only when the first piece was emitted

    heard = Speaking()
    provider.reply(say("now"), hold(spoken), say(" then"))
    request = ModelRequest(model="mock", messages=[])
    await asyncio.wait_for(model.answer(request, heard), 10)
    assert heard == ["now", " then"]


@pytest.mark.parametrize("size", [1, 2, 3, 7, None])
@pytest.mark.parametrize("newline", [b"\n", b"\r\n"])
async def test_text_does_not_depend_on_where_the_bytes_are_cut(
    provider: MockProvider, model: Remote, newline: bytes, size: int | None
) -> None:
    text = "Grüße \u2028 \u2029 \x85 𝄞\n\r\x0b end"
    provider.reply(say(text), newline=newline, size=size)
    answer, heard = await ask(model)
    assert answer.text == text
    assert heard == [text]


async def test_comments_blank_lines_other_fields_and_a_missing_space_are_read_over(
    provider: MockProvider, model: Remote
) -> None:
    tight = chunk({"content": "tight"}).replace(b"data: ", b"data:")
    provider.reply(raw(b": keep-alive\n\n\nevent: x\nid: 1\ndata:\n\n", tight), finish())
    answer, _ = await ask(model)
    assert answer.text == "tight"


@pytest.mark.parametrize(
    ("told", "parts", "expected"),
    [
        ("stop", [], FinishReason.FINISH_REASON_STOP),
        ("length", [], FinishReason.FINISH_REASON_LENGTH),
        ("content_filter", [], FinishReason.FINISH_REASON_CONTENT_FILTER),
        ("tool_calls", [call("f", {})], FinishReason.FINISH_REASON_TOOL_CALLS),
        ("function_call", [call("f", {})], FinishReason.FINISH_REASON_TOOL_CALLS),
        ("stop", [call("f", {})], FinishReason.FINISH_REASON_TOOL_CALLS),
        ("length", [call("f", '{"a')], FinishReason.FINISH_REASON_LENGTH),
        ("end_of_days", [], FinishReason.FINISH_REASON_UNSPECIFIED),
    ],
)
async def test_the_finish_reason_is_translated(
    provider: MockProvider,
    model: Remote,
    told: str,
    parts: list[Part],
    expected: FinishReason.ValueType,
) -> None:
    provider.reply(say("x"), *parts, finish(told))
    answer, _ = await ask(model)
    assert answer.finish_reason == expected


async def test_reasoning_is_apart_from_the_text(provider: MockProvider, model: Remote) -> None:
    provider.reply(delta(reasoning_content="Hm, "), delta(reasoning_content="7."), say("Seven."))
    answer, heard = await ask(model)
    assert heard == ["Seven."]
    assert answer.text == "Seven."
    assert heard.thoughts == ["Hm, ", "7."]
    field = {"openai": {"field": "reasoning_content"}}
    assert answer.parts == [Reasoning(text="Hm, 7.", state=field), Text(text="Seven.")]


async def test_a_refusal_is_text(provider: MockProvider, model: Remote) -> None:
    provider.reply(delta(content=None, refusal="I will not."))
    answer, heard = await ask(model)
    assert (answer.text, heard) == ("I will not.", ["I will not."])
    assert answer.finish_reason == FinishReason.FINISH_REASON_REFUSAL


async def test_usage_tells_cached_tokens(provider: MockProvider, model: Remote) -> None:
    told = tokens(100, 5, cached_tokens=64, cache_write_tokens=8)
    provider.reply(say("x"), finish(usage=told))
    answer, _ = await ask(model)
    assert answer.usage == Usage(
        input_tokens=100,
        output_tokens=5,
        total_tokens=105,
        cache_read_input_tokens=64,
        cache_creation_input_tokens=8,
    )


@pytest.mark.parametrize(
    "told",
    [
        None,
        {"prompt_tokens": None, "completion_tokens": 1},
        {"prompt_tokens": -1, "completion_tokens": 1},
        {"prompt_tokens": 2**31, "completion_tokens": 1},
        {"prompt_tokens": 1.5, "completion_tokens": 1},
    ],
)
async def test_usage_that_is_not_told_or_makes_no_sense_is_unknown(
    provider: MockProvider, model: Remote, told: dict[str, Any] | None
) -> None:
    provider.reply(say("x"), finish(usage=told))
    answer, _ = await ask(model)
    assert answer.usage is None
    assert answer.cost is None


async def test_the_cost_is_that_of_the_address(provider: MockProvider, model: Remote) -> None:
    provider.reply(say("x"))
    answer, _ = await ask(model)
    assert answer.usage is not None
    assert answer.cost is None  # a server on loopback has no price list


async def test_calls_one_after_the_other_share_a_connection(
    provider: MockProvider, model: Remote
) -> None:
    for _ in range(3):
        provider.reply(say("x"))
        await ask(model)
    assert provider.connections == 1


async def test_a_stream_that_stays_open_after_its_end_does_not_hold_the_answer(
    provider: MockProvider, model: Remote
) -> None:
    done = raw(chunk({}, "stop"), b"data: [DONE]\n\n")
    provider.reply(say("x"), done, hold(asyncio.Event()))
    answer, _ = await asyncio.wait_for(ask(model), 10)
    assert answer.text == "x"


async def test_the_request_is_a_streamed_chat_completion(
    provider: MockProvider, model: Remote
) -> None:
    provider.reply(say("x"))
    add = {"name": "add", "description": "Adds.", "parameters": {"type": "object"}}
    await ask(model, tools=[add], temperature=0.5, options={"seed": 7, "temperature": 0.1})
    assert provider.requests[0].path == "/v1/chat/completions"
    assert provider.requests[0].body == {
        "model": "mock",
        "messages": [{"role": "user", "content": "Hi"}],
        "stream": True,
        "stream_options": {"include_usage": True},
        "tools": [{"type": "function", "function": add}],
        "temperature": 0.1,
        "seed": 7,
    }


async def test_what_is_not_given_is_not_sent(provider: MockProvider, model: Remote) -> None:
    provider.reply(say("x"))
    await ask(model)
    sent = {"model", "messages", "stream", "stream_options"}
    assert provider.requests[0].body.keys() == sent


async def test_other_servers_get_the_bound_as_max_tokens(
    provider: MockProvider, model: Remote
) -> None:
    provider.reply(say("x"))
    await ask(model, max_output_tokens=5)
    assert provider.requests[0].body["max_tokens"] == 5


async def test_the_bound_of_a_run_wins(provider: MockProvider, model: Remote) -> None:
    provider.reply(say("x"))
    await ask(model, max_output_tokens=5, options={"max_completion_tokens": 9})
    assert provider.requests[0].body["max_completion_tokens"] == 9
    assert "max_tokens" not in provider.requests[0].body
