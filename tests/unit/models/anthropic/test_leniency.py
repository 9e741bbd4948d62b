"""The provider `anthropic` over real HTTP: what it reads of answers in other forms."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from polos.v1.event_pb2 import FinishReason, Usage
from polos_service.models.messages import Call, Reasoning, Text
from polos_service.models.remote import Remote
from tests.support.mock_answers import EndOfBody, Part, cut, hold, raw, reset, status
from tests.support.mock_anthropic import (
    Block,
    MockAnthropic,
    call,
    event,
    finish,
    kept,
    say,
    start,
)
from tests.support.models import ask

STOP = FinishReason.FINISH_REASON_STOP
TOOL_CALLS = FinishReason.FINISH_REASON_TOOL_CALLS


def bare(kind: str, **fields: Any) -> bytes:
    """Return an event without the line that names it, and without the member that does."""
    return event(kind, **fields).partition(b"\n")[2].replace(f'"type": "{kind}", '.encode(), b"")


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
