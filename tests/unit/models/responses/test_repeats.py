"""The Responses API repeats everything: nothing is lost, and nothing is said twice."""

from __future__ import annotations

import json
from typing import Any

import pytest

from polos.v1.event_pb2 import FinishReason
from polos_service.models import ModelRequest
from polos_service.models.messages import Reasoning
from polos_service.models.remote import Remote
from tests.support.mock_answers import status
from tests.support.mock_provider import MockProvider
from tests.support.mock_responses import (
    TOKENS,
    Event,
    Item,
    call,
    events,
    item,
    response,
    say,
    sent,
    think,
    think_aloud,
)
from tests.support.models import HI, failure
from tests.unit.models.responses.conftest import Ask

OUTPUT = (think("First.", "Second."), say("Hello", " world"), call("f", {"a": 1}))
"""An answer with everything in it."""


def without(told: list[Event], *kinds: str) -> list[Event]:
    """Return the events whose types do not end like this."""
    return [event for event in told if not event["type"].endswith(kinds)]


def ended(told: list[Event], **fields: Any) -> list[Event]:
    """Return events in which the response at the end has these fields."""
    last = told[-1]
    return [*told[:-1], {**last, "response": {**last["response"], **fields}}]


ALL = events(*OUTPUT)
"""The events of OUTPUT."""

DONE = [{"status": "completed", **one.done} for one in OUTPUT]
"""Its items, as they are in the end."""

ENDINGS = (".delta", "text.done", "part.done", "part.added", "arguments.done")
"""What comes between the beginning of an item and its end."""

NAMES = {
    "response.output_text.delta": "response.content_part.delta",
    "response.completed": "response.done",
}
"""What other servers call events."""

POOR: dict[str, list[Event]] = {
    "as it should be": ALL,
    "no deltas": without(ALL, ".delta"),
    "no deltas, no ends of items": ended(without(ALL, ".delta", "item.done"), output=[]),
    "only items": without(ALL, *ENDINGS),
    "only ends of items": ended(without(ALL, *ENDINGS, "item.added"), output=[]),
    "only the response": without(ALL, *ENDINGS, "item.added", "item.done"),
    "no ends of texts": without(ALL, "text.done", "part.done", "arguments.done"),
    "no beginnings": without(ALL, "item.added", "part.added"),
    "no output in the end": ended(ALL, output=[]),
    "no ends at all": ended(without(ALL, "text.done", "part.done"), output=None),
    "only deltas, then the response": without(ALL, ".done", "part.added"),
    "deltas without the last": [
        e for e in ALL if e.get("delta") not in (" world", "nd.") and "part" not in e["type"]
    ],
    "no indexes": [{k: v for k, v in e.items() if k != "output_index"} for e in ALL],
    "one index": [{**e, "output_index": 0} for e in ALL],
    "no ids": [{k: v for k, v in e.items() if k != "item_id"} for e in ALL],
    "another id each time": [
        {
            **e,
            "item_id": f"id_{n}",
            **({"item": {**e["item"], "id": f"i_{n}"}} if "item" in e else {}),
        }
        for n, e in enumerate(ALL)
    ],
    "indexes as text": [
        {**e, **({"output_index": str(e["output_index"])} if "output_index" in e else {})}
        for e in ALL
    ],
    "items without form when they begin": [
        {**e, "item": None} if e["type"].endswith("item.added") else e for e in ALL
    ],
    "other names of events": [
        {**e, "type": NAMES.get(e["type"], e["type"])} for e in ended(ALL, status=None)
    ],
    "deltas of nothing": [
        one
        for e in ALL
        for one in ([{**e, "delta": None}, {**e, "delta": ""}, e] if "delta" in e else [e])
    ],
    "no text indexes": [
        {k: v for k, v in e.items() if k not in ("content_index", "summary_index")} for e in ALL
    ],
    "the end of a text at another index": [
        {**e, "content_index": 7} if e["type"].endswith("text.done") else e for e in ALL
    ],
    "whole items when they begin": [
        {**e, "item": DONE[e["output_index"]]} if e["type"].endswith("item.added") else e
        for e in without(ALL, *ENDINGS)
    ],
}
"""What servers make of ALL."""


@pytest.mark.parametrize("told", POOR.values(), ids=POOR)
async def test_an_answer_is_whole_whatever_of_it_is_sent(
    provider: MockProvider, answered: Ask, told: list[Event]
) -> None:
    provider.reply(sent(told))
    answer, heard = await answered()
    assert "".join(heard) == answer.text == "Hello world"
    thoughts = [part.text for part in answer.parts if isinstance(part, Reasoning)]
    assert "".join(thoughts).replace("\n\n", "") == "First.Second."
    assert "".join(heard.thoughts) == "".join(thoughts)
    assert [(c.id, c.name, c.arguments_json) for c in answer.calls] == [("call_a", "f", '{"a": 1}')]
    assert [part.type for part in answer.parts] == ["reasoning", "text", "call"]
    assert answer.finish_reason == FinishReason.FINISH_REASON_TOOL_CALLS


async def test_a_whole_response_is_taken_as_an_event(provider: MockProvider, answered: Ask) -> None:
    whole = response("completed", [one.done for one in OUTPUT], usage=TOKENS)
    provider.reply(sent([whole]))
    answer, heard = await answered()
    assert heard == ["Hello world"]
    assert heard.thoughts == ["First.\n\nSecond."]
    assert len(answer.calls) == 1
    assert answer.usage is not None


async def test_the_end_of_the_arguments_wins(provider: MockProvider, answered: Ask) -> None:
    told = [
        {**e, "delta": '{"broken'} if e["type"].endswith("arguments.delta") else e
        for e in events(call("f", {"a": 1}, pieces=1))
    ]
    provider.reply(sent(told))
    answer, _ = await answered()
    assert answer.calls[0].arguments_json == '{"a": 1}'


async def test_empty_ends_do_not_erase_what_was_streamed(
    provider: MockProvider, answered: Ask
) -> None:
    empty: dict[str, Any] = {"arguments": "", "text": "", "name": ""}
    told = [
        {**e, **{name: value for name, value in empty.items() if name in e}}
        if e["type"].endswith(".done")
        else e
        for e in events(say("Hello"), call("f", {"a": 1}))
    ]
    provider.reply(sent(without(told, "item.done", "part.done")[:-1] + told[-1:]))
    answer, heard = await answered()
    assert heard == ["Hello"]
    assert answer.calls[0].arguments_json == '{"a": 1}'


async def test_arguments_that_are_an_object_are_taken_as_json(
    provider: MockProvider, answered: Ask
) -> None:
    told = without(events(call("f", {"a": 1})), "arguments.delta", "arguments.done")
    told = [{**e, "item": {**e["item"], "arguments": {"a": 1}}} if "item" in e else e for e in told]
    provider.reply(sent(ended(told, output=[])))
    answer, _ = await answered()
    assert json.loads(answer.calls[0].arguments_json) == {"a": 1}


@pytest.mark.parametrize(
    ("told", "meant"),
    [("null", "{}"), (json.dumps('{"a": 1}'), '{"a": 1}'), ('{"a": ', '{"a": ')],
)
async def test_arguments_are_taken_for_what_they_mean(
    provider: MockProvider, answered: Ask, told: str, meant: str
) -> None:
    provider.reply(sent(events(call("f", told))))
    answer, _ = await answered()
    assert answer.calls[0].arguments_json == meant


async def test_calls_that_are_interleaved_are_kept_apart(
    provider: MockProvider, answered: Ask
) -> None:
    one, two = call("f", {"a": 1}), call("g", {"b": 2}, call_id="call_b", item_id="fc_2")
    told = events(one, two)
    first = [e for e in told if e.get("output_index") == 0]
    second = [e for e in told if e.get("output_index") == 1]
    mixed = [e for pair in zip(first, second, strict=True) for e in pair]
    provider.reply(sent([*told[:2], *mixed, {**told[-1], "response": response("completed")}]))
    answer, _ = await answered()
    assert [(c.id, c.name, c.arguments_json) for c in answer.calls] == [
        ("call_a", "f", '{"a": 1}'),
        ("call_b", "g", '{"b": 2}'),
    ]


async def test_messages_that_are_interleaved_stay_as_readers_have_them(
    provider: MockProvider, answered: Ask
) -> None:
    told = events(say("a", "c", item_id="m_1"), say("b", "d", item_id="m_2"))
    first = [e for e in told if e.get("output_index") == 0]
    second = [e for e in told if e.get("output_index") == 1]
    mixed = [e for pair in zip(first, second, strict=True) for e in pair]
    provider.reply(sent([*told[:2], *mixed, told[-1]]))
    answer, heard = await answered()
    assert "".join(heard) == answer.text == "abcd"


async def test_reasoning_that_only_the_end_tells_has_its_place(
    provider: MockProvider, answered: Ask
) -> None:
    told = events(think(), say("Hello"))
    told = [e for e in told if e.get("output_index") != 0]
    provider.reply(sent(told))
    answer, heard = await answered()
    assert [part.type for part in answer.parts] == ["reasoning", "text"]
    assert answer.parts[0].state["openai"]["item"]["encrypted_content"] == "gAAAA"
    assert heard == ["Hello"]


@pytest.mark.parametrize("told", [{"output": []}, {"output": None}, {}])
async def test_a_call_without_an_end_is_a_cut(
    provider: MockProvider, model: Remote, told: dict[str, Any]
) -> None:
    cut = without(events(call("f", {"a": 1})), "arguments.done", "item.done")
    cut = [e for e in cut if not e.get("delta", "").endswith("}")]
    end = {"type": "response.completed", "response": {"status": "completed", **told}}
    provider.reply(sent([*cut[:-1], end]))
    request = ModelRequest(model="mock", messages=[HI], api="responses")
    error = await failure(model, request=request)
    assert error.retryable
    assert "a tool call is incomplete" in error.message


BIG = 'Grüße, "Welt"\n' * 20_000
"""A text whose repetitions are not parsed."""


@pytest.mark.parametrize("ascii_only", [False, True])
@pytest.mark.parametrize(
    "output",
    [
        (say(*[BIG[at : at + 5000] for at in range(0, len(BIG), 5000)]),),
        (think_aloud(*[BIG[at : at + 5000] for at in range(0, len(BIG), 5000)]), say("Yes")),
        (say("Now", *[BIG] * 2), call("f", {"text": BIG}, pieces=20), say("x" + BIG, item_id="m2")),
    ],
)
async def test_large_texts_are_neither_lost_nor_doubled(
    provider: MockProvider, answered: Ask, output: tuple[Item, ...], *, ascii_only: bool
) -> None:
    told = events(*output)
    part = sent(told)
    if ascii_only:
        lines = (b"data: " + json.dumps(event).encode() + b"\n\n" for event in told)
        part = type(part)((*lines, part.actions[-1]), ends=True)
    provider.reply(part)
    answer, heard = await answered()
    texts = [
        content["text"]
        for one in output
        for content in one.done.get("content", ())
        if one.done["type"] == "message"
    ]
    assert "".join(heard) == answer.text == "".join(texts)
    assert [c.arguments_json for c in answer.calls] == [
        one.done["arguments"] for one in output if one.done["type"] == "function_call"
    ]
    for kept in (part.state["openai"]["item"] for part in answer.parts):
        assert len(json.dumps(kept)) < 1000


async def test_a_large_text_whose_end_says_more_is_told_to_its_end(
    provider: MockProvider, answered: Ask
) -> None:
    told = [e for e in events(say(BIG, " The end.")) if e.get("delta") != " The end."]
    provider.reply(sent(told))
    answer, heard = await answered()
    assert heard == [BIG, " The end."]
    assert answer.text == BIG + " The end."


async def test_a_body_may_be_a_whole_response(provider: MockProvider, answered: Ask) -> None:
    whole = response("completed", [say("Hello").done], usage=TOKENS)
    provider.reply(status(200, whole))
    answer, heard = await answered()
    assert heard == ["Hello"]
    assert answer.finish_reason == FinishReason.FINISH_REASON_STOP


async def test_an_item_of_an_unknown_type_may_say_nothing(
    provider: MockProvider, answered: Ask
) -> None:
    provider.reply(sent(without(events(item(type="new", id="x"), say("Hi")), "item.added")))
    _, heard = await answered()
    assert heard == ["Hi"]
