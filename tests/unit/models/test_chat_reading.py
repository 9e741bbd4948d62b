"""Chat completions over real HTTP as servers really send them: text, reasoning, usage, the end."""

from __future__ import annotations

import asyncio
import json
import tracemalloc
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from polos.v1.error_pb2 import FailureReason
from polos.v1.event_pb2 import FinishReason
from polos_service.errors import StepError
from polos_service.models.draft import Draft
from polos_service.models.failures import Failures
from polos_service.models.messages import Reasoning, Text
from polos_service.models.openai.chat_answer import Chunks
from polos_service.models.remote import Remote
from polos_service.models.sse import Events
from tests.support.mock_answers import (
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
    tokens,
)
from tests.support.mock_provider import MockProvider
from tests.support.models import ask, failure

STOP = chunk({}, "stop")
DONE = b"data: [DONE]\n\n"


def reader() -> tuple[Chunks, Draft]:
    failures = Failures("host", "model", ())
    draft = Draft(failures, "openai")
    return Chunks(draft, failures), draft


def choices(**choice: Any) -> bytes:
    return event({"choices": [choice]})


@pytest.mark.parametrize("size", [1, 2, 5, None])
@pytest.mark.parametrize("newline", [b"\n", b"\r\n", b"\r"])
async def test_the_answer_is_the_same_however_it_is_framed(
    provider: MockProvider, model: Remote, newline: bytes, size: int | None
) -> None:
    hel, lo = chunk({"content": "Hel"}), chunk({"content": "lo"})
    stream = (
        b"\xef\xbb\xbf: hi\n\nevent: m\n",
        hel,
        b"data: : proxy\n\ndata:\n\ndata: ping\n\n",
        lo.replace(b'"choices"', b'\ndata: "choices"'),
        hel.strip() + lo.removeprefix(b"data:"),
        hel.strip() + b"\n" + lo,
        hel.removeprefix(b"data: "),
        STOP.rstrip(),
        b"\ndata:  [DONE] ",
    )
    provider.reply(raw(b"".join(stream)), cut(), newline=newline, size=size)
    answer, heard = await ask(model)
    assert answer.text == "".join(heard) == "HelloHelloHelloHel"


@pytest.mark.parametrize(
    "skipped",
    [
        {"type": "ping"},
        {},
        {"citations": ["u"]},
        {"choices": None},
        {"choices": []},
        {"choices": {}},
        {"choices": 5},
        {"choices": [5]},
        {"choices": [{}]},
        {"choices": [{"delta": None}]},
        {"choices": [{"delta": 5}]},
        {"choices": [{"delta": {"content": None, "role": 5, "tool_calls": None}}]},
        {"choices": [{"delta": {"reasoning_content": 5}}]},
        {"choices": [{"delta": {"content": ""}, "finish_reason": ""}]},
        {"choices": [{"index": 1, "delta": {"content": "other"}}]},
        {"choices": [], "usage": 5, "error": None},
        {"choices": [{"delta": {}, "logprobs": float("nan"), "x": "\ud83d"}]},
        None,
        5,
        "text",
        [],
        [[]],
    ],
)
async def test_what_is_unknown_is_skipped(
    provider: MockProvider, model: Remote, skipped: object
) -> None:
    odd = raw(b"data: " + json.dumps(skipped).encode() + b"\n\n")
    provider.reply(say("Hel"), odd, say("lo"))
    answer, _ = await ask(model)
    assert answer.text == "Hello"
    assert answer.usage is not None


@pytest.mark.parametrize(
    "said",
    [
        choices(index=0, message={"role": "assistant", "content": "Hi"}),
        choices(text="Hi"),
        choices(delta="Hi"),
        choices(index=1, delta={"content": "Hi"}),
        choices(index="0", delta={"content": "Hi"}),
        choices(delta={"content": [{"type": "text", "text": "H"}, {"type": "text", "text": "i"}]}),
        choices(delta={"content": {"type": "text", "text": "Hi"}}),
        choices(delta={"content": ["H", {"type": "output_text", "text": {"value": "i"}}]}),
        event({"choices": {"delta": {"content": "Hi"}}}),
        event([{"choices": [{"delta": {"content": "Hi"}}]}]),
        choices(delta={"content": "H"}, message={"content": "H"})
        + choices(delta={"content": "i"}, message={"content": "Hi"})
        + choices(message={"content": "Hi"}),
        choices(message={"content": "H"}) + choices(message={"content": "i"}),
        event({"choices": [{"index": 0, "delta": {"content": "Hi"}}, {"index": 1, "delta": {}}]}),
        b'data: {"choices":[{"delta":{"content":"Hi"},"logprobs":NaN,},]}\n\n',
    ],
)
async def test_text_is_taken_wherever_it_stands(
    provider: MockProvider, model: Remote, said: bytes
) -> None:
    provider.reply(raw(said), finish())
    answer, _ = await ask(model)
    assert answer.text == "Hi"


@pytest.mark.parametrize("number", [5, 0])
async def test_a_number_is_text(provider: MockProvider, model: Remote, number: int) -> None:
    provider.reply(delta(content=number), finish())
    assert (await ask(model))[0].text == str(number)


async def test_halves_are_joined_and_what_is_not_utf8_is_replaced(
    provider: MockProvider, model: Remote
) -> None:
    halves = raw(
        b'data: {"choices":[{"delta":{"content":"hi \\ud83d"}}]}\n\n',
        b'data: {"choices":[{"delta":{"content":"\\ude00 \xff"}}]}\n\n',
    )
    provider.reply(halves, finish())
    assert (await ask(model))[0].text == "hi 😀 \ufffd"


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        ("STOP", FinishReason.FINISH_REASON_STOP),
        ("end_turn", FinishReason.FINISH_REASON_STOP),
        ("FinishReason.MAX_TOKENS", FinishReason.FINISH_REASON_LENGTH),
        ("max_tokens", FinishReason.FINISH_REASON_LENGTH),
        ("content-filter", FinishReason.FINISH_REASON_CONTENT_FILTER),
        ("SAFETY", FinishReason.FINISH_REASON_CONTENT_FILTER),
        ("tool_calls", FinishReason.FINISH_REASON_STOP),
        ("refusal", FinishReason.FINISH_REASON_REFUSAL),
        (7, FinishReason.FINISH_REASON_UNSPECIFIED),
        ({"type": "stop"}, FinishReason.FINISH_REASON_STOP),
    ],
)
async def test_finish_reasons_of_all_servers(
    provider: MockProvider, model: Remote, told: Any, expected: FinishReason.ValueType
) -> None:
    provider.reply(say("x"), finish(told))
    assert (await ask(model))[0].finish_reason == expected


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        ({"prompt_tokens": 7.0, "completion_tokens": 3.0}, (7, 3, None, None)),
        ({"input_tokens": 7, "output_tokens": 3}, (7, 3, None, None)),
        ({**tokens(7, 3), "prompt_tokens_details": None}, (7, 3, None, None)),
        ({**tokens(7, 3), "prompt_cache_hit_tokens": 2}, (7, 3, 2, None)),
        (
            {**tokens(7, 3), "completion_tokens_details": {"reasoning_tokens": 2}},
            (7, 3, None, 2),
        ),
    ],
)
@pytest.mark.parametrize("place", ["chunk", "choice", "x_groq"])
async def test_usage_is_taken_wherever_it_stands(
    provider: MockProvider, model: Remote, place: str, told: Any, expected: Any
) -> None:
    held = {
        "chunk": event({"usage": told}),
        "choice": choices(delta={}, usage=told),
        "x_groq": event({"choices": [], "x_groq": {"usage": told}}),
    }[place]
    early = event({"choices": [], "usage": tokens(1, 1)})
    provider.reply(raw(early), say("x"), raw(held), finish())
    usage = (await ask(model))[0].usage
    assert usage is not None
    cached = usage.cache_read_input_tokens if usage.HasField("cache_read_input_tokens") else None
    reasoned = usage.reasoning_tokens if usage.HasField("reasoning_tokens") else None
    assert (usage.input_tokens, usage.output_tokens, cached, reasoned) == expected


@pytest.mark.parametrize(
    ("fields", "state"),
    [
        ([{"reasoning": "Hm"}, {"reasoning": "."}], {"field": "reasoning"}),
        ([{"reasoning_text": "Hm."}], {"field": "reasoning_text"}),
        ([{"thinking": {"content": "Hm."}}], {"field": "thinking"}),
        ([{"reasoning": "Hm.", "reasoning_content": "Hm."}], {"field": "reasoning_content"}),
        (
            [{"content": [{"type": "thinking", "thinking": [{"type": "text", "text": "Hm."}]}]}],
            {"part": "thinking"},
        ),
    ],
)
async def test_reasoning_under_every_name(
    provider: MockProvider, model: Remote, fields: list[Any], state: dict[str, str]
) -> None:
    provider.reply(*[delta(**one) for one in fields], say("7"))
    answer, heard = await ask(model)
    assert "".join(heard.thoughts) == "Hm."
    assert answer.parts == [Reasoning(text="Hm.", state={"openai": state}), Text(text="7")]


async def test_tags_in_text_are_text(provider: MockProvider, model: Remote) -> None:
    provider.reply(say("<think>x</think>"))
    assert (await ask(model))[0].text == "<think>x</think>"


async def test_reasoning_details_are_kept_whole_and_shown(
    provider: MockProvider, model: Remote
) -> None:
    text = {"type": "reasoning.text", "index": 0, "format": "f"}
    secret = {"type": "reasoning.encrypted", "index": 1, "id": "r", "data": "abc"}
    provider.reply(
        delta(reasoning_details=[{**text, "text": "Hm"}], reasoning="Hm"),
        delta(reasoning_details=[{**text, "text": "."}]),
        delta(reasoning_details=[{**text, "signature": "sig"}]),
        delta(reasoning_details=[secret]),
        delta(content="7", provider_data={"a": 1}, annotations=[1]),
    )
    answer, heard = await ask(model)
    assert heard.thoughts == ["Hm", ".", "", ""]
    details = [{**text, "text": "Hm.", "signature": "sig"}, secret]
    assert answer.state == {"openai": {"reasoning_details": details, "provider_data": {"a": 1}}}


WHOLE = {
    "object": "chat.completion",
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "Hi"}}],
    "usage": tokens(7, 3),
}


@pytest.mark.parametrize("told", ["stop", None])
@pytest.mark.parametrize("indent", [None, 2])
@pytest.mark.parametrize("kind", ["application/json", "text/event-stream", "text/plain"])
async def test_a_whole_answer_in_json_is_taken(
    provider: MockProvider, model: Remote, kind: str, indent: int | None, told: str | None
) -> None:
    choice = {**WHOLE["choices"][0], "finish_reason": told}  # type: ignore[index]
    body = json.dumps({**WHOLE, "choices": [choice]}, indent=indent).encode()
    provider.reply(status(200, body, content_type=kind))
    answer, heard = await ask(model)
    assert (answer.text, heard) == ("Hi", ["Hi"])
    assert answer.usage is not None
    assert answer.finish_reason == FinishReason.FINISH_REASON_STOP


async def test_json_lines_are_taken(provider: MockProvider, model: Remote) -> None:
    lines = [chunk({"content": "H"}), chunk({"content": "i"}), STOP]
    body = b"".join(one.removeprefix(b"data: ").replace(b"\n\n", b"\n") for one in lines)
    provider.reply(status(200, body, content_type="application/x-ndjson"))
    assert (await ask(model))[0].text == "Hi"


@pytest.mark.parametrize(
    "error",
    [
        {"error": {"message": "too long", "code": 400}},
        {"error": {"message": "too long", "type": "invalid_request_error"}},
        [{"error": {"message": "too long", "code": "400"}}],
        {"object": "error", "message": "too long", "code": 400},
        {"choices": [{"delta": {"content": ""}, "error": {"message": "too long", "code": 400}}]},
    ],
)
@pytest.mark.parametrize("as_event", [True, False])
async def test_an_error_with_status_200_is_the_providers(
    provider: MockProvider, model: Remote, error: Any, *, as_event: bool
) -> None:
    if as_event:
        provider.reply(raw(event(error)), cut())
    else:
        provider.reply(status(200, error))
    failed = await failure(model)
    assert failed.reason == FailureReason.FAILURE_REASON_MODEL_BAD_REQUEST
    assert "too long" in failed.message
    assert not failed.retryable


@pytest.mark.parametrize(
    "stream",
    [
        event({"error": "needs more memory"}),
        b'event: error\ndata: {"message": "x"}\n\n',
        b"event: error\ndata: overloaded\n\n",
        chunk({}, "error"),
        event({"detail": "x"}),
    ],
)
async def test_an_error_in_the_stream_fails_the_answer(
    provider: MockProvider, model: Remote, stream: bytes
) -> None:
    provider.reply(say("Hel"), raw(stream), hold(asyncio.Event()))
    failed = await failure(model)
    assert failed.reason == FailureReason.FAILURE_REASON_MODEL_UNAVAILABLE
    assert failed.retryable


@pytest.mark.parametrize(
    "late",
    [
        [raw(b"data: {broken\n\n"), cut()],
        [raw(event({"error": {"message": "late"}})), cut()],
        [raw(b"event: error\ndata: late\n\n"), cut()],
        [reset()],
        [cut()],
        [raw(DONE), reset()],
    ],
)
async def test_nothing_spoils_an_answer_that_is_whole(
    provider: MockProvider, model: Remote, late: list[Any]
) -> None:
    provider.reply(say("whole"), raw(STOP), *late)
    assert (await ask(model))[0].text == "whole"


@pytest.mark.parametrize("usage", [None, tokens(7, 3)])
async def test_what_keeps_the_connection_alive_does_not_prolong_the_answer(
    provider: MockProvider, model: Remote, usage: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("polos_service.models.exchange.USAGE_SECONDS", 0.3)
    told = () if usage is None else (event({"choices": [], "usage": usage}),)
    beats = [raw(b": alive\n\n", event({"type": "ping"}))] * 50
    provider.reply(say("x"), raw(STOP, *told), *beats, hold(asyncio.Event()))
    answer, _ = await asyncio.wait_for(ask(model), 20)
    assert (answer.text, answer.usage is None) == ("x", usage is None)
    await asyncio.wait_for(provider.requests[0].disconnected.wait(), 20)


async def test_text_after_a_finish_reason_is_taken(provider: MockProvider, model: Remote) -> None:
    provider.reply(raw(chunk({"content": "a"}, "stop"), chunk({"content": "b"}, "stop")), cut())
    assert (await ask(model))[0].text == "ab"


async def test_a_reset_after_text_that_followed_a_finish_reason_is_a_cut(
    provider: MockProvider, model: Remote
) -> None:
    provider.reply(raw(chunk({"content": "a"}, "stop"), chunk({"content": "b"})), reset())
    assert (await failure(model)).reason == FailureReason.FAILURE_REASON_MODEL_CUT_SHORT


async def test_done_ends_text_without_a_finish_reason(
    provider: MockProvider, model: Remote
) -> None:
    provider.reply(say("x"), raw(DONE), cut())
    answer, _ = await ask(model)
    assert (answer.text, answer.finish_reason) == ("x", FinishReason.FINISH_REASON_STOP)


@pytest.mark.parametrize("ending", [[raw(DONE), cut()], [raw(STOP, DONE), cut()]])
async def test_an_answer_of_which_nothing_was_understood_names_the_field(
    provider: MockProvider, model: Remote, ending: list[Any]
) -> None:
    provider.reply(delta(content={"type": "video", "x": 1}), *ending)
    failed = await failure(model)
    assert failed.reason == FailureReason.FAILURE_REASON_MODEL_MALFORMED
    assert not failed.retryable
    assert "choices[0].delta.content is an object" in failed.message


async def test_json_that_is_not_an_answer_points_to_the_base_url(
    provider: MockProvider, model: Remote
) -> None:
    provider.reply(status(200, {"status": "ok"}))
    failed = await failure(model)
    assert (failed.reason, failed.retryable) == (
        FailureReason.FAILURE_REASON_MODEL_MALFORMED,
        False,
    )
    assert "base URL" in failed.message


def test_an_answer_in_single_characters_takes_little_memory() -> None:
    chunks, draft = reader()
    data = b'{"choices":[{"index":0,"delta":{"content":"x"}}]}'
    tracemalloc.start()
    for _ in range(200_000):
        chunks.take(data)
    used = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    draft.finish = FinishReason.FINISH_REASON_STOP
    assert len(draft.answer(None).text) == 200_000
    assert used < 8 * 1024 * 1024


_ANY = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                [
                    "choices",
                    "delta",
                    "message",
                    "content",
                    "text",
                    "type",
                    "index",
                    "id",
                    "function",
                    "name",
                    "arguments",
                    "tool_calls",
                    "function_call",
                    "usage",
                    "error",
                    "finish_reason",
                    "reasoning",
                    "reasoning_details",
                    "refusal",
                    "thinking",
                    "x_groq",
                    "object",
                    "x",
                ]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@settings(max_examples=300, deadline=None)
@given(values=st.lists(_ANY, max_size=4), framed=st.booleans())
def test_whatever_comes_is_taken_or_a_failure_of_the_call(
    values: list[Any], *, framed: bool
) -> None:
    chunks, draft = reader()
    if framed:
        values = [{"choices": [{"index": 0, "delta": one}]} for one in values]
    try:
        for value in values:
            chunks.take(json.dumps(value).encode())
        chunks.take(b"[DONE]")
        orjson.dumps([draft.answer(None).text, draft.state and "state"])
    except StepError:
        pass


@settings(max_examples=150, deadline=None)
@given(
    texts=st.lists(st.text(min_size=1, max_size=8), min_size=1, max_size=5),
    noise=st.lists(
        st.sampled_from([b"", b": c\n\n", b"\n", b"data: {}\n\n"]), min_size=5, max_size=5
    ),
    newline=st.sampled_from([b"\n", b"\r\n", b"\r"]),
    size=st.integers(1, 300),
)
def test_the_pipeline_gives_the_same_text_however_it_is_cut(
    texts: list[str], noise: list[bytes], newline: bytes, size: int
) -> None:
    body = b"".join(
        some + chunk({"content": text}) for some, text in zip(noise, texts, strict=False)
    )
    body = (body + STOP + DONE).replace(b"\n", newline)
    chunks, draft = reader()
    events = Events()
    pieces = [body[at : at + size] for at in range(0, len(body), size)]
    found = [data for piece in pieces for data in events.feed(piece)] + events.close()
    told = "".join(chunks.take(data)[0] for data in found)
    assert draft.answer(None).text == told == "".join(texts)
