"""The provider `anthropic` over real HTTP: answers that break."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from typing import Any

import pytest

from polos.v1.error_pb2 import FailureReason
from polos_service.models.draft import MAX_ANSWER_BYTES, MAX_PARTS
from polos_service.models.remote import Remote
from tests.support.mock_answers import (
    EndOfBody,
    Part,
    cut,
    hang_up,
    hold,
    raw,
    reset,
    status,
)
from tests.support.mock_answers import say as chat
from tests.support.mock_anthropic import Block, MockAnthropic, call, event, finish, say, start
from tests.support.models import REQUEST, failure

AUTHENTICATION = FailureReason.FAILURE_REASON_MODEL_AUTHENTICATION
BAD_REQUEST = FailureReason.FAILURE_REASON_MODEL_BAD_REQUEST
CUT_SHORT = FailureReason.FAILURE_REASON_MODEL_CUT_SHORT
MALFORMED = FailureReason.FAILURE_REASON_MODEL_MALFORMED
NOT_FOUND = FailureReason.FAILURE_REASON_MODEL_NOT_FOUND
RATE_LIMITED = FailureReason.FAILURE_REASON_MODEL_RATE_LIMITED
TOO_LARGE = FailureReason.FAILURE_REASON_OUTPUT_TOO_LARGE
UNAVAILABLE = FailureReason.FAILURE_REASON_MODEL_UNAVAILABLE


def error(kind: str, message: str = "m") -> dict[str, Any]:
    return {"type": "error", "error": {"type": kind, "message": message}, "request_id": "req_x"}


@pytest.mark.parametrize("ending", [cut(), hang_up(), reset()], ids=["cut", "hang up", "reset"])
@pytest.mark.parametrize("said", [say("Hel"), call("f", {"a": 1})], ids=["text", "call"])
async def test_an_answer_that_breaks_off_is_cut_short(
    provider: MockAnthropic, model: Remote, said: Block, ending: Part
) -> None:
    provider.reply(start(), said, ending)
    raised = await failure(model)
    assert (raised.reason, raised.retryable) == (CUT_SHORT, True)


async def test_a_message_that_is_over_in_the_middle_of_a_call_is_cut_short(
    provider: MockAnthropic, model: Remote
) -> None:
    provider.reply(start(), call("f", '{"a": '), finish(None))
    assert (await failure(model)).reason == CUT_SHORT


@pytest.mark.parametrize(("word", "reason"), [("error", UNAVAILABLE), ("aborted", CUT_SHORT)])
async def test_a_stop_reason_can_tell_that_the_answer_failed(
    provider: MockAnthropic, model: Remote, word: str, reason: FailureReason.ValueType
) -> None:
    provider.reply(start(), say("Hel"), finish(word))
    raised = await failure(model)
    assert (raised.reason, raised.retryable) == (reason, True)


async def test_a_message_without_anything_is_cut_short(
    provider: MockAnthropic, model: Remote
) -> None:
    provider.reply(start(), finish(None))
    assert (await failure(model)).reason == CUT_SHORT


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        (error("overloaded_error"), (UNAVAILABLE, True)),
        (error("api_error"), (UNAVAILABLE, True)),
        (error("rate_limit_error"), (RATE_LIMITED, True)),
        (error("invalid_request_error"), (BAD_REQUEST, False)),
        (error("authentication_error"), (AUTHENTICATION, False)),
        (error("not_found_error"), (NOT_FOUND, False)),
        ({"type": "overloaded_error", "message": "m"}, (UNAVAILABLE, True)),
        ({"error": {"type": "invalid_request_error", "message": "m"}}, (BAD_REQUEST, False)),
        ({"type": "error", "error": "needs more memory"}, (UNAVAILABLE, True)),
    ],
)
async def test_an_error_in_the_stream_is_what_it_says(
    provider: MockAnthropic,
    model: Remote,
    told: dict[str, Any],
    expected: tuple[FailureReason.ValueType, bool],
) -> None:
    sent = b"event: error\ndata: " + json.dumps(told).encode() + b"\n\n"
    provider.reply(start(), say("Hel"), raw(sent), cut())
    raised = await failure(model)
    assert (raised.reason, raised.retryable) == expected


@pytest.mark.parametrize(
    ("code", "kind", "expected"),
    [
        (400, "invalid_request_error", (BAD_REQUEST, False)),
        (401, "authentication_error", (AUTHENTICATION, False)),
        (404, "not_found_error", (NOT_FOUND, False)),
        (413, "request_too_large", (BAD_REQUEST, False)),
        (429, "rate_limit_error", (RATE_LIMITED, True)),
        (500, "api_error", (UNAVAILABLE, True)),
        (529, "overloaded_error", (UNAVAILABLE, True)),
    ],
)
async def test_a_status_other_than_success_is_what_it_says(
    provider: MockAnthropic,
    model: Remote,
    code: int,
    kind: str,
    expected: tuple[FailureReason.ValueType, bool],
) -> None:
    provider.reply(status(code, error(kind, "prompt is too long")))
    raised = await failure(model)
    assert (raised.reason, raised.retryable) == expected
    if expected[0] == BAD_REQUEST:
        assert "prompt is too long" in raised.message


@pytest.mark.parametrize(
    ("data", "what"),
    [
        (b"[]", "an event is an array, not an object"),
        (b'{"type": "content_block_start", "content_block": 5}', "content_block is a number"),
        (b'{"type": "content_block_delta", "delta": "Hi"}', "delta is a string, not an object"),
        (b'{"type": "content_block_delta", "delta": {"text": ["Hi"]}}', "delta.text is an array"),
        (b'{"type": "content_block_delta", "index": [], "delta": {}}', "index is an array"),
        (b'{"type": "message", "content": 5}', "content is a number, not an array"),
        (b'{"type": "message"}', "does not have the form"),
    ],
)
async def test_an_event_that_cannot_be_read_names_the_field_and_is_not_asked_for_again(
    provider: MockAnthropic, model: Remote, data: bytes, what: str
) -> None:
    provider.reply(start(), raw(b"data: " + data + b"\n\n"), say("Hi"))
    raised = await failure(model)
    assert (raised.reason, raised.retryable) == (MALFORMED, False)
    assert what in raised.message


async def test_an_event_that_is_not_json_is_asked_for_again(
    provider: MockAnthropic, model: Remote
) -> None:
    provider.reply(start(), raw(b"data: {broken\n\n"), say("Hi"))
    raised = await failure(model)
    assert (raised.reason, raised.retryable) == (MALFORMED, True)
    assert "is not valid JSON" in raised.message


async def test_a_call_without_a_name_is_malformed(provider: MockAnthropic, model: Remote) -> None:
    provider.reply(start(), call("", {"a": 1}))
    assert (await failure(model)).reason == MALFORMED


async def test_a_server_of_chat_completions_is_told_apart_and_not_asked_again(
    provider: MockAnthropic, model: Remote
) -> None:
    provider.reply(chat("Hi"), Part((EndOfBody(),), ends=True))
    raised = await failure(model)
    assert (raised.reason, raised.retryable) == (MALFORMED, False)
    assert "chat completion" in raised.message


@pytest.mark.parametrize(
    "grows",
    [
        say(*["x" * 1024 * 1024] * 9),
        call("f", "x" * (MAX_ANSWER_BYTES + 1)),
        Block({"type": "redacted_thinking", "data": "x" * (MAX_ANSWER_BYTES + 1)}),
        Block(
            {"type": "server_tool_use", "id": "a", "name": "b", "input": {}},
            [{"type": "input_json_delta", "partial_json": x * 1024 * 1024} for x in "abcdefghi"],
        ),
        Block({"type": "new", "x": ""}, [{"type": "new_delta", "x": "x" * 1024 * 1024}] * 9),
    ],
    ids=["text", "arguments", "hidden", "arguments of the provider's tool", "unknown"],
)
async def test_an_answer_is_bounded_whatever_grows(
    provider: MockAnthropic, model: Remote, grows: Block
) -> None:
    provider.reply(start(), grows)
    raised = await failure(model)
    assert (raised.reason, raised.retryable) == (TOO_LARGE, False)


async def test_the_number_of_blocks_is_bounded(provider: MockAnthropic, model: Remote) -> None:
    begin = event("content_block_start", index=0, content_block={"type": "text", "text": ""})
    provider.reply(start(), raw(begin * (MAX_PARTS + 1)), finish())
    raised = await failure(model)
    assert raised.reason == TOO_LARGE
    assert f"{MAX_PARTS} parts" in raised.message


async def test_silence_is_bounded(provider: MockAnthropic, model: Remote) -> None:
    provider.reply(start(), say("Hel"), hold(asyncio.Event()))
    raised = await failure(model, request=replace(REQUEST, token_gap=0.2))
    assert raised.reason == FailureReason.FAILURE_REASON_MODEL_STALLED
