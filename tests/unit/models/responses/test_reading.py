"""The Responses API over real HTTP: whole answers."""

from __future__ import annotations

import asyncio
from itertools import pairwise

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from polos.v1.event_pb2 import FinishReason, Usage
from polos_service.models import ModelRequest, sse
from polos_service.models.draft import Draft
from polos_service.models.failures import Failures
from polos_service.models.messages import Call, Reasoning, Text
from polos_service.models.openai.responses_answer import Events
from polos_service.models.remote import Remote
from tests.support.mock_answers import hold, raw
from tests.support.mock_provider import MockProvider
from tests.support.mock_responses import (
    Event,
    call,
    encoded,
    events,
    item,
    responses,
    say,
    sent,
    think,
    think_aloud,
)
from tests.support.models import HI, Heard, failure
from tests.unit.models.responses.conftest import Ask


async def test_text_is_emitted_in_its_pieces_and_answered_whole(
    provider: MockProvider, answered: Ask
) -> None:
    provider.reply(responses(say("Hello", " world")))
    answer, heard = await answered()
    assert heard == ["Hello", " world"]
    assert answer.text == "Hello world"
    assert answer.finish_reason == FinishReason.FINISH_REASON_STOP
    assert answer.usage == Usage(
        input_tokens=7,
        output_tokens=3,
        total_tokens=10,
        cache_read_input_tokens=2,
        cache_creation_input_tokens=1,
        reasoning_tokens=1,
    )


async def test_a_piece_is_emitted_before_the_next_one_is_sent(
    provider: MockProvider, model: Remote
) -> None:
    spoken = asyncio.Event()

    class Speaking(Heard):
        async def text(self, piece: str) -> None:
            await super().text(piece)
            spoken.set()  # the provider goes on only when the first piece was emitted

    heard, told = Speaking(), events(say("now", " then"))
    second = next(index for index, event in enumerate(told) if event.get("delta") == " then")
    provider.reply(sent(told[:second], ends=False), hold(spoken), sent(told[second:]))
    request = ModelRequest(model="mock", messages=[HI], api="responses")
    await asyncio.wait_for(model.answer(request, heard), 10)
    assert heard == ["now", " then"]


async def test_parts_keep_their_order_and_paragraphs_of_reasoning_are_apart(
    provider: MockProvider, answered: Ask
) -> None:
    provider.reply(
        responses(
            think("First.", "Second."),
            say("I look it up.", phase="commentary"),
            call("find", {"what": "Grüße"}),
            think_aloud("Hm", "m", item_id="rs_2"),
            call("find", {"what": 2}, call_id="call_b", item_id="fc_2"),
        )
    )
    answer, heard = await answered()
    kinds = [(type(part), getattr(part, "text", "")) for part in answer.parts]
    assert kinds == [
        (Reasoning, "First.\n\nSecond."),
        (Text, "I look it up."),
        (Call, ""),
        (Reasoning, "Hmm"),
        (Call, ""),
    ]
    assert [(c.id, c.name, c.arguments_json) for c in answer.calls] == [
        ("call_a", "find", '{"what": "Gr\\u00fc\\u00dfe"}'),
        ("call_b", "find", '{"what": 2}'),
    ]
    assert "".join(heard.thoughts) == "First.\n\nSecond.Hmm"
    assert heard == ["I look it up."]
    assert answer.finish_reason == FinishReason.FINISH_REASON_TOOL_CALLS


async def test_hidden_reasoning_is_told_before_it_ends(
    provider: MockProvider, model: Remote
) -> None:
    told, thinking = events(think(), say("Yes")), asyncio.Event()

    class Watching(Heard):
        async def reasoning(self, piece: str) -> None:
            await super().reasoning(piece)
            thinking.set()

    begins = 1 + next(i for i, event in enumerate(told) if "item" in event)
    heard = Watching()
    provider.reply(sent(told[:begins], ends=False), hold(thinking), sent(told[begins:]))
    request = ModelRequest(model="mock", messages=[HI], api="responses")
    await asyncio.wait_for(model.answer(request, heard), 10)
    assert heard.thoughts == [""]
    assert heard == ["Yes"]


async def test_several_messages_are_texts_of_their_own(
    provider: MockProvider, answered: Ask
) -> None:
    search = item(id="ws_1", type="web_search_call", status="completed", action={"type": "search"})
    provider.reply(responses(say("One. ", item_id="msg_1"), search, say("Two.", item_id="msg_2")))
    answer, heard = await answered()
    assert heard == ["One. ", "Two."]
    assert [part.text for part in answer.parts if isinstance(part, Text)] == ["One. ", "", "Two."]
    assert answer.text == "One. Two."


async def test_a_refusal_is_text_and_its_own_finish_reason(
    provider: MockProvider, answered: Ask
) -> None:
    provider.reply(responses(say("I can't", " help.", refusal=True)))
    answer, heard = await answered()
    assert heard == ["I can't", " help."]
    assert answer.text == "I can't help."
    assert answer.finish_reason == FinishReason.FINISH_REASON_REFUSAL


@pytest.mark.parametrize(
    ("reason", "expected"),
    [
        ("max_output_tokens", FinishReason.FINISH_REASON_LENGTH),
        ("content_filter", FinishReason.FINISH_REASON_CONTENT_FILTER),
        ("a reason of tomorrow", FinishReason.FINISH_REASON_LENGTH),
    ],
)
async def test_an_incomplete_answer_says_why_and_makes_no_calls(
    provider: MockProvider, answered: Ask, reason: str, expected: FinishReason.ValueType
) -> None:
    part = call("f", '{"a": 1')
    provider.reply(
        responses(say("Half"), part, status="incomplete", incomplete_details={"reason": reason})
    )
    answer, _ = await answered()
    assert answer.finish_reason == expected
    assert answer.text == "Half"
    assert answer.calls == []
    assert answer.usage is not None


@pytest.mark.parametrize("newline", [b"\n", b"\r\n"])
@pytest.mark.parametrize("size", [1, 2, 3, 7])
async def test_an_answer_does_not_depend_on_where_the_bytes_are_cut(
    provider: MockProvider, answered: Ask, newline: bytes, size: int
) -> None:
    output = (think("Grüße"), say("Grüße \u2028 \x85 𝄞\n", "\r\x0b end"), call("f", {"ü": "\n"}))
    provider.reply(responses(*output), newline=newline, size=size)
    answer, heard = await answered()
    assert heard == ["Grüße \u2028 \x85 𝄞\n", "\r\x0b end"]
    assert answer.calls[0].arguments_json == '{"\\u00fc": "\\n"}'
    assert [part.text for part in answer.parts if isinstance(part, Reasoning)] == ["Grüße"]


STREAM = b"".join(map(encoded, events(think("Grüße"), say("Hel", "lo 𝄞"), call("f", {"a": 1}))))
"""The bytes of an answer."""


def read(pieces: list[bytes]) -> tuple[list[str], object]:
    """Return what readers get of an answer in these pieces, and the answer."""
    failures = Failures("host", "mock", ())
    draft = Draft(failures, "openai")
    reader, lines, heard = Events(draft, failures), sse.Events(), []
    for piece in pieces:
        heard += [text for data in lines.feed(piece) if (text := reader.take(data)[0])]
    assert reader.over
    return heard, draft.answer(None)


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.integers(0, len(STREAM)), max_size=20))
def test_an_answer_in_any_pieces_is_the_same(cuts: list[int]) -> None:
    places = [0, *sorted(cuts), len(STREAM)]
    pieces = [STREAM[a:b] for a, b in pairwise(places)]
    assert read(pieces) == read([STREAM])


async def test_what_is_unknown_is_read_over(provider: MockProvider, answered: Ask) -> None:
    told = events(say("Hello"))
    odd: list[Event] = [
        {"type": "keepalive", "sequence_number": 3},
        {"type": "response.queued"},
        {"type": "response.tomorrow", "delta": 5, "item": None},
        {"type": "response.web_search_call.searching", "output_index": 0},
        {"type": "response.output_text.annotation.added", "annotation": {"type": "url_citation"}},
        {},
    ]
    lines = [*map(encoded, odd), b": ping\n\n", b"data: []\n\n", b'data: "a"\n\n', b"data: 5\n\n"]
    provider.reply(raw(*lines), sent(told))
    answer, heard = await answered()
    assert heard == ["Hello"]
    assert answer.finish_reason == FinishReason.FINISH_REASON_STOP


async def test_the_end_is_known_without_the_end_of_the_body(
    provider: MockProvider, answered: Ask
) -> None:
    provider.reply(sent(events(say("Hello")), ends=False), hold(asyncio.Event()))
    answer, _ = await asyncio.wait_for(answered(), 10)
    assert answer.text == "Hello"


@pytest.mark.parametrize("after", [b"data: [DONE]\n\n", b"data: {garbage\n\n", b"\x00\xff"])
async def test_what_follows_the_end_does_not_matter(
    provider: MockProvider, answered: Ask, after: bytes
) -> None:
    provider.reply(sent(events(say("Hello")), ends=False), raw(after), sent([]))
    answer, _ = await answered()
    assert answer.text == "Hello"


@pytest.mark.parametrize("last", [b": end\n\n", b"data: [DONE]\n\n"])
async def test_an_answer_without_an_end_is_cut(
    provider: MockProvider, model: Remote, last: bytes
) -> None:
    provider.reply(sent(events(say("Hello"))[:-2], ends=False), raw(last), sent([]))
    request = ModelRequest(model="mock", messages=[HI], api="responses")
    error = await failure(model, request=request)
    assert error.retryable
    assert "ended before it was complete" in error.message


async def test_usage_that_makes_no_sense_is_unknown(provider: MockProvider, answered: Ask) -> None:
    for usage in (None, {}, {"input_tokens": "7", "output_tokens": 3}, {"input_tokens": -1}):
        provider.reply(responses(say("Hello"), usage=usage))
        answer, _ = await answered()
        assert answer.usage is None
    provider.reply(
        responses(
            say("Hello"),
            usage={"input_tokens": 7, "output_tokens": 3, "input_tokens_details": None},
        )
    )
    answer, _ = await answered()
    assert answer.usage == Usage(input_tokens=7, output_tokens=3, total_tokens=10)
