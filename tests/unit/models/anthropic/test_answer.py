"""The provider `anthropic` over real HTTP: what it reads."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from polos.v1.event_pb2 import FinishReason, Usage
from polos_service.models import ModelAnswer, ModelRequest
from polos_service.models.messages import Call, Reasoning, Text
from polos_service.models.remote import Remote
from tests.support.mock_answers import EndOfBody, Part, cut, hold, raw, reset, status
from tests.support.mock_anthropic import (
    Block,
    MockAnthropic,
    call,
    event,
    finish,
    say,
    start,
    think,
)
from tests.support.models import Heard, ask

STOP = FinishReason.FINISH_REASON_STOP
TOOL_CALLS = FinishReason.FINISH_REASON_TOOL_CALLS


def kept(**block: Any) -> dict[str, Any]:
    """Return the state of a part with what the provider sent of its block."""
    return {"anthropic": {"block": block}}


def bare(kind: str, **fields: Any) -> bytes:
    """Return an event without the line that names it, and without the member that does."""
    return event(kind, **fields).partition(b"\n")[2].replace(f'"type": "{kind}", '.encode(), b"")


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


async def test_calls_whose_blocks_interleave_are_told_apart_by_their_index(
    provider: MockAnthropic, model: Remote
) -> None:
    def fragment(index: int, text: str) -> bytes:
        delta = {"type": "input_json_delta", "partial_json": text}
        return event("content_block_delta", index=index, delta=delta)

    def begin(index: int, kind: str, **fields: Any) -> bytes:
        return event("content_block_start", index=index, content_block={"type": kind, **fields})

    def thought(text: str) -> bytes:
        delta = {"type": "thinking_delta", "thinking": text}
        return event("content_block_delta", index=0, delta=delta)

    provider.reply(
        raw(
            begin(0, "thinking", thinking=""),
            begin(1, "tool_use", id="a", name="f", input={}),
            begin(2, "tool_use", id="b", name="g", input={}),
            fragment(1, '{"x"'),
            thought("Hm"),
            fragment(2, '{"y"'),
            fragment(1, ": 1}"),
            event(
                "content_block_delta",
                index=0,
                delta={"type": "signature_delta", "signature": "s"},
            ),
            fragment(2, ": 2}"),
        ),
        finish("tool_use"),
    )
    answer, _ = await ask(model)
    assert answer.parts == [
        Reasoning(text="Hm", state=kept(type="thinking", signature="s")),
        Call(id="a", name="f", arguments_json='{"x": 1}'),
        Call(id="b", name="g", arguments_json='{"y": 2}'),
    ]


@pytest.mark.parametrize(
    ("given", "fragments", "expected"),
    [
        ({"x": 1}, [], '{"x":1}'),
        ('{"x": 1}', [], '{"x": 1}'),
        ({"x": 1}, ["", '{"x": 2}'], '{"x": 2}'),
        ({"x": 1}, ["{}"], '{"x":1}'),
        ({}, [{"x": 1}], '{"x":1}'),
        ({}, [], "{}"),
        ({}, ["null"], "{}"),
        ({}, ['"{\\"x\\": 1}"'], '{"x": 1}'),
        (None, [""], "{}"),
    ],
)
async def test_arguments_are_taken_in_whichever_form_they_come(
    provider: MockAnthropic, model: Remote, given: Any, fragments: list[Any], expected: str
) -> None:
    begin = {"type": "tool_use", "id": "a", "name": "f", "input": given}
    deltas = [{"type": "input_json_delta", "partial_json": one} for one in fragments]
    provider.reply(start(), Block(begin, deltas))
    answer, _ = await ask(model)
    assert [one.arguments_json for one in answer.calls] == [expected]


async def test_text_and_reasoning_may_stand_in_the_beginning_of_the_block(
    provider: MockAnthropic, model: Remote
) -> None:
    provider.reply(
        start(),
        Block({"type": "thinking", "thinking": "Hm", "signature": "s"}),
        Block({"type": "text", "text": "Hi"}, [{"type": "text_delta", "text": " there"}]),
    )
    answer, heard = await ask(model)
    assert (list(heard), heard.thoughts) == (["Hi", " there"], ["Hm"])
    assert answer.parts == [
        Reasoning(text="Hm", state=kept(type="thinking", signature="s")),
        Text(text="Hi there"),
    ]


async def test_events_may_lack_their_names_their_kinds_and_their_beginnings(
    provider: MockAnthropic, model: Remote
) -> None:
    provider.reply(
        raw(
            bare("message_start", message={"content": [], "usage": {"input_tokens": 2}}),
            bare("content_block_delta", index=0, delta={"text": "Hi"}),
            bare("content_block_stop", index=0),
            bare("content_block_start", content_block={"type": "tool_use", "id": "a", "name": "f"}),
            bare("content_block_delta", delta={"partial_json": "{}"}),
            bare("message_delta", delta={"stop_reason": "tool_use"}),
            bare("message_delta", usage={"output_tokens": 3}),
            b"data: [DONE]\n\n",
        ),
        Part((EndOfBody(),), ends=True),
    )
    answer, _ = await ask(model)
    assert answer.parts == [Text(text="Hi"), Call(id="a", name="f", arguments_json="{}")]
    assert answer.usage == Usage(input_tokens=2, output_tokens=3, total_tokens=5)


@pytest.mark.parametrize(
    "unknown",
    [
        {"type": "ping"},
        {"type": "brand_new", "index": 0},
        {},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "brand_new", "x": 1}},
        {"type": "message_delta", "delta": None, "usage": None},
        {"type": "message_delta", "delta": {"stop_reason": None}, "usage": 5},
        {"type": "message_start", "message": None},
        {"type": "content_block_start", "index": 0, "content_block": None},
        {"type": "content_block_delta", "index": 0},
    ],
)
async def test_what_is_unknown_is_skipped(
    provider: MockAnthropic, model: Remote, unknown: dict[str, Any]
) -> None:
    odd = b"data: " + json.dumps(unknown).encode() + b"\n\n"
    provider.reply(start(), raw(odd), say("Hi"), raw(odd), finish())
    answer, _ = await ask(model)
    assert answer.parts == [Text(text="Hi")]


@pytest.mark.parametrize(
    "after",
    [
        raw(b"data: {not JSON\n\n"),
        raw(b'event: error\ndata: {"type": "error", "error": {"message": "late"}}\n\n'),
        reset(),
    ],
    ids=["garbage", "error", "reset"],
)
async def test_an_answer_that_has_its_stop_reason_stands_whatever_follows(
    provider: MockAnthropic, model: Remote, after: Part
) -> None:
    end = event("message_delta", delta={"stop_reason": "end_turn"}, usage={"output_tokens": 3})
    closed = () if after.ends else (Part((EndOfBody(),), ends=True),)
    provider.reply(start(), say("Hi"), raw(end), after, *closed)
    answer, _ = await ask(model)
    assert (answer.text, answer.finish_reason) == ("Hi", STOP)


async def test_a_message_that_is_over_without_a_stop_reason_ended_as_it_stands(
    provider: MockAnthropic, model: Remote
) -> None:
    provider.reply(start(), call("f", {"x": 1}), finish(None))
    answer, _ = await ask(model)
    assert answer.finish_reason == TOOL_CALLS
    assert [one.arguments_json for one in answer.calls] == ['{"x": 1}']


WHOLE = {
    "type": "message",
    "role": "assistant",
    "content": [
        {"type": "thinking", "thinking": "Hm", "signature": "s"},
        {"type": "text", "text": "Hi"},
        {"type": "tool_use", "id": "a", "name": "f", "input": {"x": 1}},
    ],
    "stop_reason": "tool_use",
    "usage": {"input_tokens": 2, "output_tokens": 3},
}


@pytest.mark.parametrize(
    "reply",
    [
        (
            raw(b"data: " + json.dumps(WHOLE).encode() + b"\n\n"),
            Part((EndOfBody(),), ends=True),
        ),
        (raw(json.dumps(WHOLE, indent=2).encode()), Part((EndOfBody(),), ends=True)),
        (status(200, WHOLE),),
    ],
    ids=["event", "stream", "body"],
)
async def test_a_whole_message_is_taken_where_events_are_expected(
    provider: MockAnthropic, model: Remote, reply: tuple[Part, ...]
) -> None:
    provider.reply(*reply)
    answer, heard = await ask(model)
    assert (list(heard), heard.thoughts) == (["Hi"], ["Hm"])
    assert answer.parts == [
        Reasoning(text="Hm", state=kept(type="thinking", signature="s")),
        Text(text="Hi"),
        Call(id="a", name="f", arguments_json='{"x":1}'),
    ]
    assert answer.usage == Usage(input_tokens=2, output_tokens=3, total_tokens=5)


async def test_a_call_without_an_id_gets_one(provider: MockAnthropic, model: Remote) -> None:
    provider.reply(start(), call("f", {}, call_id=""))
    answer, _ = await ask(model)
    assert answer.calls[0].id.startswith("call_")


async def test_cancelling_closes_the_connection(provider: MockAnthropic, model: Remote) -> None:
    provider.reply(start(), say("Hi"), hold(asyncio.Event()))
    asking = asyncio.create_task(ask(model))
    request = await provider.received()
    asking.cancel()
    await asyncio.gather(asking, return_exceptions=True)
    await asyncio.wait_for(request.disconnected.wait(), 10)


@pytest.mark.parametrize("numbers", [(1, 0), ("1", 1), (1, "1"), (1, None), (0, 1)], ids=str)
async def test_blocks_and_deltas_may_be_numbered_differently(
    provider: MockAnthropic, model: Remote, numbers: tuple[object, object]
) -> None:
    of_block, of_delta = numbers
    begin = {"type": "tool_use", "id": "a", "name": "f", "input": {}}
    delta = {"type": "input_json_delta", "partial_json": '{"a":1}'}
    provider.reply(
        start(),
        say("Hi"),
        raw(
            event("content_block_start", index=of_block, content_block=begin),
            event("content_block_start", index=of_block, content_block=begin),
            event("content_block_delta", index=of_delta, delta=delta),
        ),
        finish("tool_use"),
    )
    answer, _ = await ask(model)
    assert answer.text == "Hi"
    assert [(one.id, one.name, one.arguments_json) for one in answer.calls] == [
        ("a", "f", '{"a":1}')
    ]


@pytest.mark.parametrize("called", [False, True])
async def test_a_stream_that_says_that_it_is_over_needs_no_stop_reason(
    provider: MockAnthropic, model: Remote, *, called: bool
) -> None:
    said = call("f", {"a": 1}) if called else say("Hi")
    provider.reply(start(), said, raw(b"data: [DONE]\n\n"), cut())
    answer, _ = await ask(model)
    assert [one.name for one in answer.calls] == (["f"] if called else [])
    assert answer.text == ("" if called else "Hi")


async def test_what_is_not_an_event_is_skipped_and_a_list_holds_several(
    provider: MockAnthropic, model: Remote
) -> None:
    junk = b"".join(b"data: %b\n\n" % one for one in (b'"ping"', b"1", b"null", b"[]", b"true"))
    delta = {"type": "content_block_delta", "index": 0, "delta": {"text": "Hi"}}
    provider.reply(start(), raw(junk, f"data: {json.dumps([delta])}\n\n".encode()), finish())
    answer, _ = await ask(model)
    assert answer.text == "Hi"
