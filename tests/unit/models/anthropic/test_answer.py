"""The provider `anthropic` over real HTTP: what it reads."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from polos.v1.event_pb2 import FinishReason, Usage
from polos_service.models import ModelAnswer, ModelRequest
from polos_service.models.messages import Call, Reasoning, Text
from polos_service.models.remote import Remote
from tests.support.mock_answers import EndOfBody, Part, hold, raw
from tests.support.mock_anthropic import (
    Block,
    MockAnthropic,
    call,
    event,
    finish,
    kept,
    say,
    start,
    think,
)
from tests.support.models import Heard, ask

STOP = FinishReason.FINISH_REASON_STOP
TOOL_CALLS = FinishReason.FINISH_REASON_TOOL_CALLS


async def test_text_reaches_readers_in_its_pieces_and_is_answered_whole(
    provider: MockAnthropic, model: Remote
) -> None:
    provider.reply(start(), say("Hello", " world"))
    answer, heard = await ask(model)
    assert heard == ["Hello", " world"]
    assert answer == ModelAnswer(
        parts=[Text(text="Hello world")],
        finish_reason=STOP,
        usage=Usage(input_tokens=7, output_tokens=3, total_tokens=10),
    )


async def test_a_piece_is_heard_before_the_next_one_is_sent(
    provider: MockAnthropic, model: Remote
) -> None:
    spoken = asyncio.Event()

    class Speaking(Heard):
        async def text(self, piece: str) -> None:
            await super().text(piece)
            spoken.set()

    heard = Speaking()
    provider.reply(start(), say("now"), hold(spoken), say(" then"))
    await asyncio.wait_for(model.answer(ModelRequest(model="mock", messages=[]), heard), 10)
    assert heard == ["now", " then"]


@pytest.mark.parametrize("size", [1, 2, 3, 7, 64, None])
@pytest.mark.parametrize("newline", [b"\n", b"\r\n"])
async def test_an_answer_does_not_depend_on_where_the_bytes_are_cut(
    provider: MockAnthropic, model: Remote, newline: bytes, size: int | None
) -> None:
    text = "Grüße \u2028 \x85 𝄞\n end"
    provider.reply(
        start(),
        raw(b": keep-alive\n\n", event("ping")),
        think("Hm", " ä"),
        say(text),
        call("add", {"ä": [1, "𝄞"]}),
        newline=newline,
        size=size,
    )
    answer, heard = await ask(model)
    assert heard == [text]
    assert answer.parts == [
        Reasoning(text="Hm ä", state=kept(type="thinking", signature="signed")),
        Text(text=text),
        Call(id="toolu_a", name="add", arguments_json='{"\\u00e4": [1, "\\ud834\\udd1e"]}'),
    ]
    assert answer.finish_reason == TOOL_CALLS


async def test_reasoning_reaches_readers_and_its_beginning_tells_that_there_is_some(
    provider: MockAnthropic, model: Remote
) -> None:
    hidden = {"type": "redacted_thinking", "data": "x=="}
    provider.reply(start(), think("Let", " me"), Block(hidden), think(), say("Hi"))
    answer, heard = await ask(model)
    assert heard.thoughts == ["", "Let", " me", "", ""]
    signed = kept(type="thinking", signature="signed")
    assert answer.parts == [
        Reasoning(text="Let me", state=signed),
        Reasoning(state=kept(**hidden)),
        Reasoning(state=signed),
        Text(text="Hi"),
    ]


async def test_blocks_that_only_the_provider_understands_are_kept_in_their_place(
    provider: MockAnthropic, model: Remote
) -> None:
    searching = {"type": "server_tool_use", "id": "srvtoolu_1", "name": "web_search", "input": {}}
    query = [
        {"type": "input_json_delta", "partial_json": piece} for piece in ("", '{"query":', ' "x"}')
    ]
    found = {"type": "web_search_tool_result", "tool_use_id": "srvtoolu_1", "content": [{"u": 1}]}
    new = {"type": "brand_new", "text": "a", "n": 1}
    grown = [{"type": "brand_new_delta", "text": "b", "n": 2, "m": [3]}]
    provider.reply(
        start(), say("I look."), Block(searching, query), Block(found), Block(new, grown), say("!")
    )
    answer, heard = await ask(model)
    assert heard == ["I look.", "!"]
    assert answer.parts == [
        Text(text="I look."),
        Reasoning(state=kept(**{**searching, "input": {"query": "x"}})),
        Reasoning(state=kept(**found)),
        Reasoning(state=kept(type="brand_new", text="ab", n=2, m=[3])),
        Text(text="!"),
    ]


async def test_a_block_of_the_providers_own_that_is_cut_does_not_go_back(
    provider: MockAnthropic, model: Remote
) -> None:
    searching = {"type": "server_tool_use", "id": "srvtoolu_1", "name": "web_search", "input": {}}
    cut = {"type": "input_json_delta", "partial_json": '{"query":'}
    provider.reply(start(), say("I look."), Block(searching, [cut]), finish("max_tokens"))
    answer, _ = await ask(model)
    assert answer.parts == [Text(text="I look."), Reasoning()]


async def test_several_calls_in_one_block_are_each_made(
    provider: MockAnthropic, model: Remote
) -> None:
    provider.reply(start(), call("f", '{"x": 1}{"x": 2}'))
    answer, _ = await ask(model)
    assert [(one.name, one.arguments_json) for one in answer.calls] == [
        ("f", '{"x":1}'),
        ("f", '{"x":2}'),
    ]


async def test_halves_of_a_surrogate_pair_are_joined_and_json_may_be_loose(
    provider: MockAnthropic, model: Remote
) -> None:
    halves = [
        b'data: {"type": "content_block_delta", "odd": NaN, "delta": {"text": "%b"}}\n\n' % half
        for half in (rb"\ud83d", rb"\ude00 ok")
    ]
    provider.reply(start(), raw(*halves), finish())
    answer, heard = await ask(model)
    assert (answer.text, "".join(heard)) == ("😀 ok", "😀 ok")


async def test_citations_and_unknown_members_are_kept_with_their_block(
    provider: MockAnthropic, model: Remote
) -> None:
    cited = [{"type": "char_location", "cited_text": text} for text in ("a", "b")]
    deltas: list[dict[str, Any]] = [
        {"type": "text_delta", "text": "As they say"},
        *({"type": "citations_delta", "citation": one} for one in cited),
    ]
    caller = {"type": "tool_use", "id": "toolu_a", "name": "f", "input": {}, "caller": {"x": 1}}
    provider.reply(
        start(), Block({"type": "text", "text": "", "citations": None}, deltas), Block(caller)
    )
    answer, _ = await ask(model)
    assert answer.parts == [
        Text(text="As they say", state=kept(citations=cited)),
        Call(
            id="toolu_a",
            name="f",
            arguments_json="{}",
            state=kept(caller={"x": 1}),
        ),
    ]


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        ("end_turn", STOP),
        ("stop_sequence", STOP),
        ("max_tokens", FinishReason.FINISH_REASON_LENGTH),
        ("MAX_TOKENS", FinishReason.FINISH_REASON_LENGTH),
        ("model_context_window_exceeded", FinishReason.FINISH_REASON_LENGTH),
        ("pause_turn", FinishReason.FINISH_REASON_LENGTH),
        ("refusal", FinishReason.FINISH_REASON_REFUSAL),
        ("brand_new", FinishReason.FINISH_REASON_UNSPECIFIED),
    ],
)
async def test_stop_reasons(
    provider: MockAnthropic, model: Remote, told: str, expected: FinishReason.ValueType
) -> None:
    provider.reply(start(), say("Hi"), finish(told))
    answer, _ = await ask(model)
    assert (answer.text, answer.finish_reason) == ("Hi", expected)


async def test_the_calls_of_an_answer_that_was_cut_are_not_made(
    provider: MockAnthropic, model: Remote
) -> None:
    provider.reply(start(), say("Hi"), call("add", '{"a": '), finish("max_tokens"))
    answer, _ = await ask(model)
    assert answer.parts == [Text(text="Hi")]
    assert answer.finish_reason == FinishReason.FINISH_REASON_LENGTH


@pytest.mark.parametrize(
    ("said", "expected"), [([], "It could harm."), ([say("Well")], "Well")], ids=["none", "some"]
)
async def test_a_refusal_without_text_says_what_its_details_explain(
    provider: MockAnthropic, model: Remote, said: list[Block], expected: str
) -> None:
    details = {"type": "refusal", "category": "cyber", "explanation": "It could harm."}
    delta = {"stop_reason": "refusal", "stop_details": details}
    end = raw(event("message_delta", delta=delta, usage={}), event("message_stop"))
    provider.reply(start(), think("Hm"), *said, end, Part((EndOfBody(),), ends=True))
    answer, heard = await ask(model)
    assert (answer.text, list(heard)) == (expected, [expected])
    assert answer.finish_reason == FinishReason.FINISH_REASON_REFUSAL


async def test_usage_counts_what_is_cached_as_input_and_the_last_output_tokens(
    provider: MockAnthropic, model: Remote
) -> None:
    cache = {"cache_read_input_tokens": 100, "cache_creation_input_tokens": 20}
    details = {"thinking_tokens": 5}
    provider.reply(start(**cache), say("Hi"), finish(output_tokens_details=details))
    answer, _ = await ask(model)
    assert answer.usage == Usage(
        input_tokens=127,
        output_tokens=3,
        total_tokens=130,
        cache_read_input_tokens=100,
        cache_creation_input_tokens=20,
        reasoning_tokens=5,
    )


async def test_usage_may_be_told_at_the_end_only_or_be_none(
    provider: MockAnthropic, model: Remote
) -> None:
    provider.reply(start(input_tokens=0), say("Hi"), finish(input_tokens=9, output_tokens=4))
    provider.reply(say("Hi"), finish(input_tokens=None, output_tokens="many"))
    told, _ = await ask(model)
    assert told.usage == Usage(input_tokens=9, output_tokens=4, total_tokens=13)
    untold, _ = await ask(model)
    assert untold.usage is None
