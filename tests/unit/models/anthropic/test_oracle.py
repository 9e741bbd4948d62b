"""The provider `anthropic` reads what Anthropic's own package reads in the same bytes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import orjson
from anthropic import AsyncAnthropic
from anthropic._streaming import SSEDecoder
from anthropic.lib.streaming._messages import accumulate_event
from anthropic.types import Message as TheirMessage
from hypothesis import given, settings
from hypothesis import strategies as st

from polos.v1.event_pb2 import FinishReason
from polos_service.models import ModelAnswer
from polos_service.models.anthropic.answer import MessageEvents
from polos_service.models.draft import Draft
from polos_service.models.failures import Failures
from polos_service.models.finish import FINISH_REASONS
from polos_service.models.messages import Call, Part, Reasoning, Text
from polos_service.models.remote import Remote
from polos_service.models.sse import Events
from tests.support.mock_answers import Part as Piece
from tests.support.mock_answers import raw
from tests.support.mock_anthropic import (
    Block,
    MockAnthropic,
    answer,
    call,
    event,
    finish,
    say,
    start,
    think,
)
from tests.support.models import KEY, ask

SEARCH = {"type": "server_tool_use", "id": "srvtoolu_1", "name": "web_search", "input": {}}
CITATION = {"type": "char_location", "cited_text": "a", "document_index": 0, "document_title": "t"}
CITED = Block(
    {"type": "text", "text": ""},
    [
        {"type": "citations_delta", "citation": {**CITATION, "start_char_index": 0}},
        {"type": "text_delta", "text": "As they say"},
    ],
)


def ours(answered: ModelAnswer) -> list[dict[str, Any]]:
    return [_block(part) for part in answered.parts]


def _block(part: Part) -> dict[str, Any]:
    state = dict(part.state.get("anthropic", {}).get("block", {}))
    match part:
        case Text():
            return {"type": "text", "text": part.text, **state}
        case Reasoning() if state["type"] == "thinking":
            return {**state, "thinking": part.text}
        case Call():
            arguments = orjson.loads(part.arguments_json)
            return {"type": "tool_use", "id": part.id, "name": part.name, "input": arguments}
        case _:
            return state


def theirs(message: TheirMessage) -> list[dict[str, Any]]:
    """Return the blocks as the package has them, without texts that are empty."""
    blocks = [block.to_dict() for block in message.content]
    return [one for one in blocks if one["type"] != "text" or one["text"]]


def accumulated(data: bytes) -> TheirMessage:
    message: Any = None
    fragments: dict[int, bytes] = {}
    for one in SSEDecoder().iter_bytes(iter([data])):
        if one.event != "ping":
            message = accumulate_event(
                event=one.json(), current_snapshot=message, json_bufs=fragments
            )
    assert isinstance(message, TheirMessage)
    return message


def read(data: bytes, cut: int) -> ModelAnswer:
    failures = Failures("mock", "mock", ())
    draft = Draft(failures, "anthropic")
    events, lines = MessageEvents(draft, failures), Events()
    for at in range(0, len(data), cut):
        for found in lines.feed(data[at : at + cut]):
            events.take(found)
    assert events.over
    return draft.answer(None)


WORD = st.text('ab ä𝄞\n\r\u2028"\\:{', min_size=1, max_size=5)
TEXTS = st.lists(WORD, max_size=3)
LEAVES = st.none() | st.booleans() | st.integers(-9, 9) | WORD
JSON = LEAVES | st.lists(LEAVES, max_size=2) | st.dictionaries(WORD, LEAVES, max_size=2)


@st.composite
def blocks(draw: st.DrawFn) -> Block:
    match draw(st.integers(0, 5)):
        case 0:
            return say(*draw(TEXTS))
        case 1:
            return think(*draw(TEXTS), signature=draw(st.text("ab=", min_size=1)))
        case 2:
            arguments = draw(st.dictionaries(WORD, JSON, max_size=2))
            call_id = draw(st.text("ab", min_size=1))
            return call("f", arguments, call_id=call_id, pieces=draw(st.integers(1, 4)))
        case 3:
            return Block({"type": "redacted_thinking", "data": draw(st.text("ab="))})
        case 4:
            fragments = [
                {"type": "input_json_delta", "partial_json": one} for one in ('{"q"', ":1}")
            ]
            return Block(SEARCH, fragments)
        case _:
            return CITED


def _bytes(parts: list[Piece]) -> Iterator[bytes]:
    for part in parts:
        yield from (one for one in part.actions if isinstance(one, bytes))


@settings(deadline=None)
@given(
    st.lists(blocks(), max_size=6, unique_by=lambda one: one.begin.get("id", id(one))),
    st.sampled_from(["end_turn", "max_tokens", "refusal", "tool_use", "pause_turn"]),
    st.integers(0, 99),
    st.integers(1, 80),
)
def test_the_same_bytes_give_the_same_answer(
    said: list[Block], reason: str, cached: int, cut: int
) -> None:
    usage = {"cache_read_input_tokens": cached, "input_tokens": 9, "output_tokens": 5}
    parts = answer(start(), raw(event("ping")), *said, finish(reason, **usage))
    data = b"".join(_bytes(parts))
    expected, made = accumulated(data), read(data, cut)
    calls = reason in ("end_turn", "tool_use")
    assert ours(made) == [one for one in theirs(expected) if calls or one["type"] != "tool_use"]
    if not made.calls and reason != "tool_use":
        assert made.finish_reason == FINISH_REASONS[expected.stop_reason or ""]
    assert made.usage is not None
    assert made.usage.output_tokens == expected.usage.output_tokens
    assert made.usage.input_tokens == expected.usage.input_tokens + cached


async def test_the_package_itself_reads_the_mock_provider(
    provider: MockAnthropic, model: Remote
) -> None:
    for _ in range(2):
        provider.reply(start(), think("Hm"), say("I ", "add."), call("add", {"a": 1, "b": [2]}))
    async with AsyncAnthropic(base_url=provider.url, api_key=KEY, max_retries=0) as client:
        asking = client.messages.stream(
            model="mock", max_tokens=9, messages=[{"role": "user", "content": "Hi"}]
        )
        async with asking as stream:
            expected = await stream.get_final_message()
    answered, _ = await ask(model)
    assert ours(answered) == theirs(expected)
    assert answered.finish_reason == FinishReason.FINISH_REASON_TOOL_CALLS
    theirs_sent, ours_sent = provider.requests
    assert ours_sent.path == theirs_sent.path
