"""The Responses API: errors, and what breaks the protocol."""

from __future__ import annotations

import asyncio
import json
from types import SimpleNamespace
from typing import Any

import orjson
import pytest

from polos.v1.error_pb2 import FailureReason
from polos_service.errors import StepError
from polos_service.models import ModelRequest
from polos_service.models.draft import MAX_ANSWER_BYTES, Draft
from polos_service.models.failures import Failures
from polos_service.models.openai import responses_answer
from polos_service.models.openai.responses_answer import Events
from polos_service.models.openai.responses_output import MAX_ITEMS
from polos_service.models.remote import Remote
from tests.support.mock_answers import Part, hang_up, hold, raw, reset, status
from tests.support.mock_provider import MockProvider
from tests.support.mock_responses import Event, call, encoded, events, response, say, sent
from tests.support.models import HI, KEY, Heard, failure
from tests.unit.models.responses.conftest import Ask

REQUEST = ModelRequest(model="mock", messages=[HI], api="responses")


def failed(code: str, message: str = "The reason.") -> Event:
    """Return the event of a response that failed."""
    told = response("failed", error={"code": code, "message": message})
    return {"type": "response.failed", "response": told}


@pytest.mark.parametrize(
    ("told", "reason", "retryable"),
    [
        (failed("server_error"), FailureReason.FAILURE_REASON_MODEL_UNAVAILABLE, True),
        (failed("rate_limit_exceeded"), FailureReason.FAILURE_REASON_MODEL_RATE_LIMITED, True),
        (failed("a code of tomorrow"), FailureReason.FAILURE_REASON_MODEL_UNAVAILABLE, True),
        (failed("invalid_prompt"), FailureReason.FAILURE_REASON_MODEL_BAD_REQUEST, False),
        (failed("image_too_large"), FailureReason.FAILURE_REASON_MODEL_BAD_REQUEST, False),
        (failed("bio_policy"), FailureReason.FAILURE_REASON_MODEL_BAD_REQUEST, False),
        (
            {"type": "response.failed", "response": {"status": "failed", "error": None}},
            FailureReason.FAILURE_REASON_MODEL_UNAVAILABLE,
            True,
        ),
        (
            {"type": "error", "code": "rate_limit_exceeded", "message": "m", "param": None},
            FailureReason.FAILURE_REASON_MODEL_RATE_LIMITED,
            True,
        ),
        (
            {"type": "error", "error": {"type": "invalid_request_error", "message": "m"}},
            FailureReason.FAILURE_REASON_MODEL_BAD_REQUEST,
            False,
        ),
        (
            {"error": {"code": 400, "message": "m"}},
            FailureReason.FAILURE_REASON_MODEL_BAD_REQUEST,
            False,
        ),
        (
            {
                "type": "response.completed",
                "response": {"status": "failed", "error": {"code": 401}},
            },
            FailureReason.FAILURE_REASON_MODEL_AUTHENTICATION,
            False,
        ),
        (
            {"type": "response.cancelled", "response": response("cancelled")},
            FailureReason.FAILURE_REASON_MODEL_CUT_SHORT,
            True,
        ),
        (response("queued"), FailureReason.FAILURE_REASON_MODEL_CUT_SHORT, True),
    ],
)
async def test_an_error_in_the_stream_is_told_with_its_reason(
    provider: MockProvider,
    model: Remote,
    told: Event,
    reason: FailureReason.ValueType,
    *,
    retryable: bool,
) -> None:
    provider.reply(sent([*events(say("Hel"))[:5], told]))
    error = await failure(model, request=REQUEST)
    assert (error.reason, error.retryable) == (reason, retryable)


async def test_the_words_of_a_refused_request_are_told_without_the_key(
    provider: MockProvider, model: Remote
) -> None:
    provider.reply(sent([failed("invalid_prompt", f"The prompt has {KEY} in it.")]))
    error = await failure(model, request=REQUEST)
    assert "The prompt has" in error.message


@pytest.mark.parametrize(
    ("data", "what"),
    [
        (b'{"type":"response.output_text.delta","delta":{"a":1}}', "'delta' of an event"),
        (b'{"type":"response.output_text.delta"}', "'response.output_text.delta'"),
        (b'{"type":"response.output_item.done","item":[]}', "'item' of an event"),
        (b'{"type":"response.completed","response":"done"}', "'response' of an event"),
        (b'{"type":"response.completed","response":{"output":7}}', "'response.completed'"),
    ],
)
async def test_a_loss_names_the_field_and_is_not_tried_again(
    provider: MockProvider, model: Remote, data: bytes, what: str
) -> None:
    provider.reply(raw(b"data: " + data + b"\n\n"), sent([]))
    error = await failure(model, request=REQUEST)
    assert error.reason == FailureReason.FAILURE_REASON_MODEL_MALFORMED
    assert not error.retryable
    assert what in error.message


@pytest.mark.parametrize(
    ("part", "reason"),
    [
        (raw(b'data: {"type":\n\n'), FailureReason.FAILURE_REASON_MODEL_MALFORMED),
        (hang_up(), FailureReason.FAILURE_REASON_MODEL_CUT_SHORT),
        (reset(), FailureReason.FAILURE_REASON_MODEL_CUT_SHORT),
    ],
)
async def test_what_may_heal_is_tried_again(
    provider: MockProvider, model: Remote, part: Part, reason: FailureReason.ValueType
) -> None:
    end = () if part.ends else (sent([]),)
    provider.reply(sent(events(say("Hello"))[:-2], ends=False), part, *end)
    error = await failure(model, request=REQUEST)
    assert (error.reason, error.retryable) == (reason, True)


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        (400, FailureReason.FAILURE_REASON_MODEL_BAD_REQUEST),
        (401, FailureReason.FAILURE_REASON_MODEL_AUTHENTICATION),
        (404, FailureReason.FAILURE_REASON_MODEL_NOT_FOUND),
        (429, FailureReason.FAILURE_REASON_MODEL_RATE_LIMITED),
        (503, FailureReason.FAILURE_REASON_MODEL_UNAVAILABLE),
    ],
)
async def test_an_http_status_is_told_as_for_every_api(
    provider: MockProvider, model: Remote, code: int, reason: FailureReason.ValueType
) -> None:
    provider.reply(status(code, {"error": {"message": "m", "type": "t", "code": None}}))
    assert (await failure(model, request=REQUEST)).reason == reason


async def test_cancelling_closes_the_connection(provider: MockProvider, model: Remote) -> None:
    spoken = asyncio.Event()

    class Speaking(Heard):
        async def text(self, piece: str) -> None:
            await super().text(piece)
            spoken.set()

    provider.reply(sent(events(say("Hel", "lo"))[:5], ends=False), hold(asyncio.Event()))
    task = asyncio.create_task(model.answer(REQUEST, Speaking()))
    await asyncio.wait_for(spoken.wait(), 10)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await asyncio.wait_for(provider.requests[0].disconnected.wait(), 10)


def reader() -> tuple[Draft, Events]:
    failures = Failures("host", "mock", ())
    draft = Draft(failures, "openai")
    return draft, Events(draft, failures)


def take(events_: Events, told: Event) -> None:
    events_.take(json.dumps(told).encode())


def grow(kind: str, **fields: Any) -> Event:
    return {"type": f"response.{kind}", "output_index": 0, **fields}


PIECE = "x" * 65536


@pytest.mark.parametrize(
    "told",
    [
        grow("output_text.delta", delta=PIECE),
        grow("refusal.delta", delta=PIECE),
        grow("reasoning_text.delta", delta=PIECE),
        grow("reasoning_summary_text.delta", delta=PIECE),
        grow("function_call_arguments.delta", delta=PIECE),
        grow("function_call_arguments.done", arguments=PIECE),
        grow("output_item.added", item={"type": "message", "id": PIECE}),
        grow("output_item.done", item={"type": "other", "data": PIECE}),
        grow("output_item.added", item={"type": "function_call", "name": PIECE}),
    ],
)
def test_an_answer_is_bounded_whatever_it_consists_of(told: Event) -> None:
    _, events_ = reader()
    with pytest.raises(StepError) as raised:
        for number in range(MAX_ANSWER_BYTES // len(PIECE) + 2):
            index = number if "item" in told else 0
            fields = {name: f"{number}{v}" for name, v in told.items() if name == "arguments"}
            take(events_, {**told, "output_index": index, **fields})
    assert raised.value.reason == FailureReason.FAILURE_REASON_OUTPUT_TOO_LARGE


def test_the_number_of_items_is_bounded() -> None:
    _, events_ = reader()
    with pytest.raises(StepError) as raised:
        for index in range(MAX_ITEMS + 1):
            take(
                events_, {**grow("output_item.added", item={"type": "new"}), "output_index": index}
            )
    assert raised.value.reason == FailureReason.FAILURE_REASON_OUTPUT_TOO_LARGE


@pytest.mark.parametrize("character", ["x", "ü", "\x01", "\U0001d11e", "\n"])
@pytest.mark.parametrize("streamed", [True, False])
async def test_an_answer_of_four_mebibytes_is_read_though_its_end_repeats_it(
    provider: MockProvider, answered: Ask, character: str, *, streamed: bool
) -> None:
    piece = character * (65536 // len(character.encode()))
    told = events(say(*[piece] * 64), call("f", {}))
    if not streamed:
        told = [event for event in told if "delta" not in event]
    escaped = [b"data: " + json.dumps(event).encode() + b"\n\n" for event in told]
    provider.reply(raw(*escaped), sent([]))
    answer, heard = await answered()
    assert answer.text == "".join(heard) == piece * 64
    assert len(answer.calls) == 1


def test_an_event_that_repeats_a_large_text_is_cut_before_it_is_parsed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sizes: list[int] = []

    def loads(data: bytes) -> Any:
        sizes.append(len(data))
        return orjson.loads(data)

    monkeypatch.setattr(responses_answer, "orjson", SimpleNamespace(loads=loads))
    draft, events_ = reader()
    text = 'He said: "Grüße"\n' * 4000
    output = (say(*[text] * 20), call("f", {"text": text * 10}, pieces=20))
    for event in events(*output):
        events_.take(encoded(event).partition(b"data: ")[2].strip())
    assert max(sizes) < 2 * len(text.encode())
    assert draft.answer(None).text == text * 20
