"""What servers of chat completions really send, a kind a test, over a real socket."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from polos.v1.error_pb2 import FailureReason
from polos.v1.event_pb2 import FinishReason
from polos_service.models import ModelAnswer
from polos_service.models.messages import Call
from polos_service.models.remote import Remote
from tests.support.mock_answers import (
    Part,
    chunk,
    cut,
    delta,
    event,
    finish,
    hold,
    raw,
    reset,
    say,
    status,
)
from tests.support.mock_provider import MockProvider
from tests.support.models import ask, failure

CITY = {"type": "object", "properties": {"city": {"type": "string"}}}
TOOLS = [
    {"name": name, "description": "", "parameters": CITY} for name in ("get_weather", "get_time")
]
OSLO = '{"city": "Oslo"}'
PERU = '{"city": "Lima"}'

DONE = b"data: [DONE]\n\n"


def fragment(index: int | None = 0, **more: Any) -> dict[str, Any]:
    """Return a fragment of a call."""
    return ({} if index is None else {"index": index}) | more


def named(name: str = "get_weather", arguments: Any = OSLO, **more: Any) -> dict[str, Any]:
    """Return a whole call."""
    return {"function": {"name": name, "arguments": arguments}, **more}


def asks(*fragments: Any) -> Part:
    """The model asks for tools, a chunk for each fragment."""
    return Part(tuple(chunk({"tool_calls": [one]}) for one in fragments), calls=True)


async def answered(model: Remote) -> ModelAnswer:
    """Return the answer to a request that offers tools."""
    answer, _ = await asyncio.wait_for(ask(model, tools=TOOLS), 20)
    return answer


def made(calls: list[Call]) -> list[tuple[str, Any]]:
    """Return what is called, and with which arguments."""
    return [(call.name, json.loads(call.arguments_json)) for call in calls]


WEATHER_OSLO = ("get_weather", {"city": "Oslo"})
WEATHER_LIMA = ("get_weather", {"city": "Lima"})


@pytest.mark.parametrize("word", ["tool_call", "STOP", "stop", "end_turn", "eos", "function_call"])
async def test_a_call_is_made_whatever_the_finish_reason(
    provider: MockProvider, model: Remote, word: str
) -> None:
    provider.reply(asks(fragment(id="a", **named())), finish(word))
    answer = await answered(model)
    assert made(answer.calls) == [WEATHER_OSLO]
    assert answer.finish_reason == FinishReason.FINISH_REASON_TOOL_CALLS


@pytest.mark.parametrize("word", ["length", "content_filter"])
async def test_a_call_of_an_answer_that_was_cut_or_filtered_is_void(
    provider: MockProvider, model: Remote, word: str
) -> None:
    provider.reply(asks(fragment(id="a", **named())), finish(word))
    assert (await answered(model)).calls == []


async def test_calls_that_share_an_index_and_have_no_id_are_told_apart(
    provider: MockProvider, model: Remote
) -> None:
    provider.reply(asks(fragment(**named()), fragment(**named(arguments=PERU))))
    assert made((await answered(model)).calls) == [WEATHER_OSLO, WEATHER_LIMA]


async def test_fragments_without_an_index_are_grouped_by_their_id(
    provider: MockProvider, model: Remote
) -> None:
    heads = [
        fragment(None, id=one, function={"name": "get_weather", "arguments": ""}) for one in "ab"
    ]
    pieces = [
        fragment(None, id=one, function={"arguments": text})
        for cuts in zip((OSLO[:5], OSLO[5:]), (PERU[:7], PERU[7:]), strict=True)
        for one, text in zip("ab", cuts, strict=True)
    ]
    provider.reply(asks(*heads, *pieces))
    assert made((await answered(model)).calls) == [WEATHER_OSLO, WEATHER_LIMA]


@pytest.mark.parametrize(
    ("told", "arguments"),
    [
        ({"city": "Oslo"}, {"city": "Oslo"}),
        (json.dumps(OSLO), {"city": "Oslo"}),
        ("null", {}),
        (None, {}),
        ("", {}),
    ],
)
async def test_arguments_in_another_form_are_taken(
    provider: MockProvider, model: Remote, told: Any, arguments: Any
) -> None:
    provider.reply(asks(fragment(id="a", **named(arguments=told))))
    assert made((await answered(model)).calls) == [("get_weather", arguments)]


async def test_a_name_in_pieces_is_joined_if_together_they_name_a_tool(
    provider: MockProvider, model: Remote
) -> None:
    first = fragment(id="a", function={"name": "get_", "arguments": ""})
    second = fragment(function={"name": "weather", "arguments": OSLO})
    provider.reply(asks(first, second))
    assert made((await answered(model)).calls) == [WEATHER_OSLO]


async def test_calls_that_are_one_object_are_one_call(
    provider: MockProvider, model: Remote
) -> None:
    provider.reply(Part((chunk({"tool_calls": fragment(id="a", **named())}),), calls=True))
    assert made((await answered(model)).calls) == [WEATHER_OSLO]


async def test_a_legacy_function_call_is_a_call(provider: MockProvider, model: Remote) -> None:
    pieces = [{"name": "get_weather", "arguments": OSLO[:6]}, {"arguments": OSLO[6:]}]
    provider.reply(*(delta(function_call=one) for one in pieces), finish("function_call"))
    assert made((await answered(model)).calls) == [WEATHER_OSLO]


async def test_a_call_without_a_finish_reason_is_made_once_the_stream_says_that_it_is_over(
    provider: MockProvider, model: Remote
) -> None:
    provider.reply(asks(fragment(id="a", **named())), raw(DONE), cut())
    assert made((await answered(model)).calls) == [WEATHER_OSLO]


async def test_a_call_without_a_finish_reason_and_without_an_end_is_a_cut(
    provider: MockProvider, model: Remote
) -> None:
    provider.reply(asks(fragment(id="a", **named())), cut())
    error = await failure(model)
    assert error.reason == FailureReason.FAILURE_REASON_MODEL_CUT_SHORT
    assert error.retryable


@pytest.mark.parametrize(
    "odd",
    [
        event({"type": "ping"}),
        event({}),
        event({"citations": ["https://example.org"]}),
        event({"choices": None}),
        event({"object": "heartbeat", "choices": []}),
        b"event: ping\ndata: {}\n\n",
        b": comment\n\n",
        b"data: : OPENROUTER PROCESSING\n\n",
        b"retry: 3000\nid: 7\n\n",
    ],
)
async def test_what_is_not_a_chunk_is_skipped(
    provider: MockProvider, model: Remote, odd: bytes
) -> None:
    provider.reply(raw(odd), say("Hi"), raw(odd), say("!"), raw(odd), finish())
    answer, heard = await ask(model)
    assert (answer.text, heard) == ("Hi!", ["Hi", "!"])


async def test_usage_without_choices_is_taken(provider: MockProvider, model: Remote) -> None:
    used = event({"usage": {"prompt_tokens": 7, "completion_tokens": 3}})
    provider.reply(say("Hi"), raw(chunk({}, "stop"), used, DONE), cut())
    answer, _ = await ask(model)
    assert answer.usage is not None
    assert answer.usage.total_tokens == 10


async def test_a_second_choice_is_ignored(provider: MockProvider, model: Remote) -> None:
    both = [{"index": index, "delta": {"content": text}} for index, text in enumerate(("Hi", "Ho"))]
    provider.reply(raw(event({"choices": both}), event({"choices": both[1:]})), finish())
    answer, heard = await ask(model)
    assert (answer.text, heard) == ("Hi", ["Hi"])


async def test_half_a_character_that_stays_alone_is_replaced(
    provider: MockProvider, model: Remote
) -> None:
    halves = [b'"hi \\ud83d"', b'"\\ude00 ok \\ud83d"', b'"!"']
    chunks = [b'data: {"choices":[{"index":0,"delta":{"content":%b}}]}\n\n' % one for one in halves]
    provider.reply(raw(*chunks), finish())
    answer, heard = await ask(model)
    assert answer.text == "hi \U0001f600 ok \ufffd!"
    assert "".join(heard) == answer.text


async def test_bytes_that_are_not_utf8_are_replaced(provider: MockProvider, model: Remote) -> None:
    provider.reply(raw(chunk({"content": "caf?"}).replace(b"?", b"\xe9")), finish())
    assert (await ask(model))[0].text == "caf\ufffd"


@pytest.mark.parametrize("odd", [b"NaN", b"Infinity", b"123456789012345678901234567890"])
async def test_a_value_that_json_does_not_know_is_ignored_where_it_is_not_needed(
    provider: MockProvider, model: Remote, odd: bytes
) -> None:
    provider.reply(raw(chunk({"content": "Hi"}, logprob="?").replace(b'"?"', odd)), finish())
    assert (await ask(model))[0].text == "Hi"


@pytest.mark.parametrize("size", [1, None])
@pytest.mark.parametrize("newline", [b"\n", b"\r\n", b"\r"])
async def test_lines_end_as_the_standard_allows(
    provider: MockProvider, model: Remote, newline: bytes, size: int | None
) -> None:
    provider.reply(say("Hi", " there"), finish(), newline=newline, size=size)
    assert (await ask(model))[0].text == "Hi there"


async def test_data_over_several_lines_is_one_event(provider: MockProvider, model: Remote) -> None:
    whole = json.dumps(json.loads(chunk({"content": "Hi"})[6:]), indent=1)
    lines = "".join(f"data: {line}\n" for line in whole.splitlines())
    provider.reply(raw(lines.encode() + b"\n"), finish())
    assert (await ask(model))[0].text == "Hi"


async def test_a_last_line_without_its_end_is_taken(provider: MockProvider, model: Remote) -> None:
    provider.reply(say("Hi"), raw(chunk({}, "stop").rstrip()), cut())
    assert (await ask(model))[0].text == "Hi"


async def test_a_whole_answer_instead_of_a_stream_is_taken(
    provider: MockProvider, model: Remote
) -> None:
    message = {"role": "assistant", "content": "Hi", "tool_calls": None}
    used = {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10}
    choice = {"index": 0, "message": message, "finish_reason": "stop"}
    provider.reply(status(200, {"object": "chat.completion", "choices": [choice], "usage": used}))
    answer, heard = await ask(model)
    assert (answer.text, heard) == ("Hi", ["Hi"])
    assert answer.usage is not None
    assert answer.usage.total_tokens == 10


@pytest.mark.parametrize(
    ("told", "message"),
    [
        ({"error": "needs more memory"}, "needs more memory"),
        ({"object": "error", "message": "no such luck"}, "no such luck"),
        ({"error": {"message": "overheated", "code": 503}}, "overheated"),
    ],
)
async def test_an_error_in_a_stream_is_told_in_its_words(
    provider: MockProvider, model: Remote, told: Any, message: str
) -> None:
    provider.reply(say("Hi"), raw(event(told)), cut())
    error = await failure(model)
    assert message in error.message
    assert error.retryable


@pytest.mark.parametrize(("code", "retryable"), [(400, False), (503, True)])
async def test_an_error_with_status_200_is_told_and_tried_again_as_its_code_means(
    provider: MockProvider,
    model: Remote,
    code: int,
    retryable: bool,  # noqa: FBT001
) -> None:
    provider.reply(status(200, {"error": {"message": "not this", "code": code}}))
    error = await failure(model)
    assert "not this" in error.message
    assert error.retryable is retryable


async def test_heartbeats_after_the_end_are_not_waited_for(
    provider: MockProvider, model: Remote
) -> None:
    used = event({"choices": [], "usage": {"prompt_tokens": 7, "completion_tokens": 3}})
    provider.reply(say("Hi"), raw(chunk({}, "stop"), used, b": beat\n\n"), hold(asyncio.Event()))
    answer, _ = await asyncio.wait_for(ask(model), 10)
    assert answer.text == "Hi"
    assert answer.usage is not None


@pytest.mark.parametrize(
    "late",
    [[raw(b"garbage\n\n"), cut()], [raw(event({"error": "too late"})), cut()], [reset()]],
    ids=["garbage", "error", "reset"],
)
async def test_an_answer_that_is_whole_stands_whatever_follows(
    provider: MockProvider, model: Remote, late: list[Part]
) -> None:
    provider.reply(say("Hi"), raw(chunk({}, "stop")), *late)
    assert (await ask(model))[0].text == "Hi"


@pytest.mark.parametrize("member", ["reasoning_content", "reasoning"])
async def test_reasoning_is_passed_on_whatever_its_field_is_called(
    provider: MockProvider, model: Remote, member: str
) -> None:
    provider.reply(delta(**{member: "Hm."}), say("Hi"))
    answer, heard = await ask(model)
    assert (answer.text, heard.thoughts) == ("Hi", ["Hm."])


async def test_text_in_parts_is_text(provider: MockProvider, model: Remote) -> None:
    provider.reply(delta(content=[{"type": "text", "text": "Hi"}]), finish())
    assert (await ask(model))[0].text == "Hi"


@pytest.mark.parametrize("lost", [{"mystery": 1}, [{"type": "mystery"}], True], ids=str)
async def test_text_that_cannot_be_read_is_not_lost_silently(
    provider: MockProvider, model: Remote, lost: Any
) -> None:
    provider.reply(delta(content=lost), finish())
    error = await failure(model)
    assert error.reason == FailureReason.FAILURE_REASON_MODEL_MALFORMED
    assert "content" in error.message
