"""The provider `openai` over real HTTP: each way in which a provider can fail."""

from __future__ import annotations

import asyncio
import email.utils
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from pydantic import SecretStr

from polos.v1.error_pb2 import FailureReason
from polos_service.errors import StepError
from polos_service.models import ModelRequest, openai
from polos_service.models.completion import MAX_ANSWER_BYTES
from polos_service.models.openai import MAX_LINE_BYTES, OpenAI
from tests.mock_provider import (
    MockProvider,
    Part,
    call,
    chunk,
    cut,
    delta,
    event,
    finish,
    hang_up,
    hold,
    raw,
    reset,
    say,
    status,
)

KEY = "wunderbar-9f8e7d6c5b4a"


@pytest.fixture
async def provider() -> AsyncIterator[MockProvider]:
    async with MockProvider() as provider:
        yield provider


@pytest.fixture
async def model(provider: MockProvider) -> AsyncIterator[OpenAI]:
    model = OpenAI(base_url=provider.url, api_key=SecretStr(KEY))
    yield model
    await model.close()


async def ignore(text: str) -> None:
    pass


REQUEST = ModelRequest(model="mock", messages=[{"role": "user", "content": "Hi"}])


async def failure(model: OpenAI, emit: Callable[[str], Any] = ignore) -> StepError:
    with pytest.raises(StepError) as raised:
        await asyncio.wait_for(model.answer(REQUEST, emit), 20)
    assert_tells_no_secret(raised.value)
    return raised.value


def assert_tells_no_secret(error: BaseException) -> None:
    """Look through the error, its attributes and every error that travels along with it."""
    assert error.__cause__ is None
    assert error.__context__ is None
    shown = f"{error} {error!r} {error.args} {vars(error)}"
    assert KEY not in shown
    assert "sk-" not in shown


@pytest.mark.parametrize(
    ("code", "reason", "retryable"),
    [
        (400, FailureReason.FAILURE_REASON_MODEL_BAD_REQUEST, False),
        (401, FailureReason.FAILURE_REASON_MODEL_AUTHENTICATION, False),
        (402, FailureReason.FAILURE_REASON_MODEL_RATE_LIMITED, False),
        (403, FailureReason.FAILURE_REASON_MODEL_AUTHENTICATION, False),
        (404, FailureReason.FAILURE_REASON_MODEL_NOT_FOUND, False),
        (408, FailureReason.FAILURE_REASON_MODEL_UNAVAILABLE, True),
        (409, FailureReason.FAILURE_REASON_MODEL_UNAVAILABLE, True),
        (422, FailureReason.FAILURE_REASON_MODEL_BAD_REQUEST, False),
        (429, FailureReason.FAILURE_REASON_MODEL_RATE_LIMITED, True),
        (500, FailureReason.FAILURE_REASON_MODEL_UNAVAILABLE, True),
        (503, FailureReason.FAILURE_REASON_MODEL_UNAVAILABLE, True),
    ],
)
async def test_a_status_tells_reason_host_model_and_request_id(
    provider: MockProvider,
    model: OpenAI,
    code: int,
    reason: FailureReason.ValueType,
    *,
    retryable: bool,
) -> None:
    provider.reply(status(code, {"error": {"message": f"no: {KEY} and sk-abc***xyz"}}))
    error = await failure(model)
    assert (error.reason, error.retryable) == (reason, retryable)
    assert error.provider_request_id == "req_1"
    for part in ("127.0.0.1", "'mock'", str(code)):
        assert part in error.message


@pytest.mark.parametrize(
    "body",
    [
        {"error": {"message": "context is too long"}},
        {"message": "context is too long"},
        {"detail": "context is too long"},
        {"error": "context is too long"},
    ],
)
async def test_a_bad_request_quotes_the_provider(
    provider: MockProvider, model: OpenAI, body: dict[str, Any]
) -> None:
    provider.reply(status(400, body))
    assert "context is too long" in (await failure(model)).message


async def test_a_quoted_message_is_short_and_without_keys(
    provider: MockProvider, model: OpenAI
) -> None:
    keys = f"{KEY} sk-proj-abcdef123 Bearer abc.def AB***YZ {'a1' * 20} http://me:pass@host/x"
    provider.reply(status(400, {"error": {"message": f"Bad keys {keys} end" + " word" * 500}}))
    message = (await failure(model)).message
    assert (
        "Bad keys [hidden] [hidden] [hidden] [hidden] [hidden] http://[hidden]host/x end" in message
    )
    assert len(message) < 700


@pytest.mark.parametrize("code", [401, 403])
async def test_a_refused_key_quotes_nothing(
    provider: MockProvider, model: OpenAI, code: int
) -> None:
    provider.reply(status(code, {"error": {"message": "Incorrect key provided: whatever"}}))
    message = (await failure(model)).message
    assert "whatever" not in message
    assert "Check the key" in message


async def test_a_used_up_quota_is_not_tried_again(provider: MockProvider, model: OpenAI) -> None:
    body = {"error": {"message": "m", "type": "insufficient_quota", "code": "insufficient_quota"}}
    provider.reply(status(429, body, retry_after="3"))
    error = await failure(model)
    assert error.reason == FailureReason.FAILURE_REASON_MODEL_RATE_LIMITED
    assert (error.retryable, error.retry_after) == (False, None)


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry_after": "3"}, 3.0),
        ({"retry_after": "0.5"}, 0.5),
        ({"retry_after": "-1"}, 0.0),
        ({"retry_after_ms": "250", "retry_after": "9"}, 0.25),
        ({"retry_after": "soon"}, None),
        ({"retry_after": "inf"}, None),
        ({}, None),
    ],
)
async def test_a_rate_limit_tells_how_long_to_wait(
    provider: MockProvider, model: OpenAI, headers: dict[str, str], seconds: float | None
) -> None:
    provider.reply(status(429, **headers))
    assert (await failure(model)).retry_after == seconds


async def test_a_rate_limit_may_name_a_date(provider: MockProvider, model: OpenAI) -> None:
    provider.reply(status(429, retry_after=email.utils.formatdate(time.time() + 60, usegmt=True)))
    waits = (await failure(model)).retry_after
    assert waits is not None
    assert 50 < waits <= 61


async def test_a_failure_before_the_answer_is_first_retried_in_silence(
    provider: MockProvider, model: OpenAI
) -> None:
    provider.reply(status(503, x_should_retry="true", retry_after_ms="1"))
    provider.reply(say("x"))
    answer = await model.answer(REQUEST, ignore)
    assert answer.text == "x"
    assert len(provider.requests) == 2


@pytest.mark.parametrize("said", [[], [say("Hel")], [call("f", '{"a": ')]])
async def test_an_answer_without_a_finish_reason_is_cut_short(
    provider: MockProvider, model: OpenAI, said: list[Part]
) -> None:
    provider.reply(*said, raw(b"data: [DONE]\n\n"), cut())
    error = await failure(model)
    assert error.reason == FailureReason.FAILURE_REASON_MODEL_CUT_SHORT
    assert error.retryable
    assert error.provider_request_id == "req_1"


async def test_an_answer_that_ends_in_the_middle_of_a_chunk_is_cut_short(
    provider: MockProvider, model: OpenAI
) -> None:
    provider.reply(say("Hel"), raw(chunk({"content": "lo"})[:40]), cut())
    assert (await failure(model)).reason == FailureReason.FAILURE_REASON_MODEL_CUT_SHORT


@pytest.mark.parametrize("ending", [reset(), hang_up()])
@pytest.mark.parametrize("said", [say("Hel"), call("f", {"a": 1})])
async def test_a_connection_lost_after_output_is_cut_short(
    provider: MockProvider, model: OpenAI, said: Part, ending: Part
) -> None:
    provider.reply(said, ending)
    error = await failure(model)
    assert error.reason == FailureReason.FAILURE_REASON_MODEL_CUT_SHORT
    assert error.retryable


@pytest.mark.parametrize("ending", [reset(), hang_up()])
async def test_a_connection_lost_before_output_is_unavailable(
    provider: MockProvider, model: OpenAI, ending: Part
) -> None:
    provider.reply(raw(b": hello\n\n"), delta(role="assistant"), ending)
    error = await failure(model)
    assert error.reason == FailureReason.FAILURE_REASON_MODEL_UNAVAILABLE
    assert error.retryable


async def test_a_connection_lost_after_the_finish_reason_lost_nothing(
    provider: MockProvider, model: OpenAI
) -> None:
    provider.reply(say("whole"), raw(chunk({}, "stop")), hang_up())
    assert (await model.answer(REQUEST, ignore)).text == "whole"


async def test_a_provider_that_is_not_there_is_unavailable() -> None:
    async with MockProvider() as provider:
        url = provider.url
    model = OpenAI(base_url=url)
    try:
        error = await failure(model)
    finally:
        await model.close()
    assert error.reason == FailureReason.FAILURE_REASON_MODEL_UNAVAILABLE
    assert error.retryable
    assert url.split("/")[2] in error.message


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        ([], FailureReason.FAILURE_REASON_MODEL_UNAVAILABLE),
        ([say("Hel")], FailureReason.FAILURE_REASON_MODEL_CUT_SHORT),
    ],
)
async def test_silence_is_bounded(
    provider: MockProvider,
    model: OpenAI,
    monkeypatch: pytest.MonkeyPatch,
    said: list[Part],
    reason: FailureReason.ValueType,
) -> None:
    monkeypatch.setattr(openai, "READ_GAP_SECONDS", 0.2)
    provider.reply(raw(b":\n"), *said, hold(asyncio.Event()))
    error = await failure(model)
    assert (error.reason, error.retryable) == (reason, True)
    assert "silent" in error.message


@pytest.mark.parametrize(
    "data",
    [
        b"{broken",
        b"[]",
        b"null",
        b'"text"',
        b"{}",
        b'{"choices": 5}',
        b'{"choices": [5]}',
        b'{"choices": [{"delta": 5}]}',
        b'{"choices": [{"delta": {"content": 5}}]}',
        b'{"choices": [{"delta": {"content": ["a"]}}]}',
        b'{"choices": [{"delta": {"tool_calls": 5}}]}',
        b'{"choices": [{"delta": {"tool_calls": [{"function": {"name": 5}}]}}]}',
        b'{"choices": [{"delta": {"tool_calls": [{"index": [], "function": {}}]}}]}',
        b'{"choices": [{"delta": {"tool_calls": [{"function": {"arguments": {"a": 1}}}]}}]}',
        b'{"choices": [{"delta": {"reasoning_content": 5}}]}',
        b'{"choices": [], "usage": 5}',
        b'{"choices": [{"delta": {"content": "\\ud83d"}}]}',
        b'{"choices": [{"delta": {"content": "\xff"}}]}',
    ],
)
async def test_what_is_no_chunk_is_malformed(
    provider: MockProvider, model: OpenAI, data: bytes
) -> None:
    provider.reply(say("Hel"), raw(b"data: " + data + b"\n\n"), say("lo"))
    error = await failure(model)
    assert error.reason == FailureReason.FAILURE_REASON_MODEL_MALFORMED
    assert error.retryable


async def test_a_tool_call_without_a_name_is_malformed(
    provider: MockProvider, model: OpenAI
) -> None:
    provider.reply(call("", {"a": 1}))
    assert (await failure(model)).reason == FailureReason.FAILURE_REASON_MODEL_MALFORMED


async def test_an_answer_that_is_no_stream_is_malformed_for_good(
    provider: MockProvider, model: OpenAI
) -> None:
    provider.reply(status(200, b"<html>Welcome</html>", content_type="text/html"))
    error = await failure(model)
    assert error.reason == FailureReason.FAILURE_REASON_MODEL_MALFORMED
    assert not error.retryable
    assert "base URL" in error.message


async def test_a_line_that_never_ends_is_malformed(provider: MockProvider, model: OpenAI) -> None:
    provider.reply(raw(b"data: ", *[b"x" * 65536] * (MAX_LINE_BYTES // 65536)), cut())
    error = await failure(model)
    assert error.reason == FailureReason.FAILURE_REASON_MODEL_MALFORMED
    assert str(MAX_LINE_BYTES) in error.message


@pytest.mark.parametrize(
    ("told", "reason", "retryable"),
    [
        ({"type": "server_error"}, FailureReason.FAILURE_REASON_MODEL_UNAVAILABLE, True),
        ("overloaded", FailureReason.FAILURE_REASON_MODEL_UNAVAILABLE, True),
        ({"code": 502}, FailureReason.FAILURE_REASON_MODEL_UNAVAILABLE, True),
        ({"code": 429}, FailureReason.FAILURE_REASON_MODEL_RATE_LIMITED, True),
        ({"code": "rate_limit_exceeded"}, FailureReason.FAILURE_REASON_MODEL_RATE_LIMITED, True),
        ({"type": "insufficient_quota"}, FailureReason.FAILURE_REASON_MODEL_RATE_LIMITED, False),
        ({"code": "invalid_api_key"}, FailureReason.FAILURE_REASON_MODEL_AUTHENTICATION, False),
        ({"type": "invalid_request_error"}, FailureReason.FAILURE_REASON_MODEL_BAD_REQUEST, False),
    ],
)
async def test_an_error_inside_the_stream_is_told_by_its_code(
    provider: MockProvider,
    model: OpenAI,
    told: Any,
    reason: FailureReason.ValueType,
    *,
    retryable: bool,
) -> None:
    error_event = told if isinstance(told, str) else {**told, "message": f"no {KEY}"}
    provider.reply(say("Hel"), raw(event({"error": error_event})), finish())
    error = await failure(model)
    assert (error.reason, error.retryable) == (reason, retryable)
    assert error.provider_request_id == "req_1"


async def test_the_finish_reason_error_is_a_failure(provider: MockProvider, model: OpenAI) -> None:
    provider.reply(say("Hel"), finish("error"))
    error = await failure(model)
    assert error.reason == FailureReason.FAILURE_REASON_MODEL_UNAVAILABLE
    assert error.retryable


@pytest.mark.parametrize(
    "half", [{"content": "ü" * (MAX_ANSWER_BYTES // 4)}, {"content": "x" * (MAX_ANSWER_BYTES // 2)}]
)
async def test_an_answer_beyond_its_bound_is_stopped(
    provider: MockProvider, model: OpenAI, half: dict[str, str]
) -> None:
    arguments = "y" * (MAX_ANSWER_BYTES // 2)
    never = asyncio.Event()
    provider.reply(delta(**half), call("f", arguments, pieces=1), hold(never))
    error = await failure(model)
    assert error.reason == FailureReason.FAILURE_REASON_OUTPUT_TOO_LARGE
    assert not error.retryable
    await asyncio.wait_for(provider.requests[0].disconnected.wait(), 10)


async def test_an_answer_at_its_bound_is_whole(provider: MockProvider, model: OpenAI) -> None:
    provider.reply(say(*["x" * 1024] * (MAX_ANSWER_BYTES // 1024)))
    assert len((await model.answer(REQUEST, ignore)).text) == MAX_ANSWER_BYTES


@pytest.mark.parametrize("said", [[], [say("Hel")]])
async def test_cancelling_closes_the_connection(
    provider: MockProvider, model: OpenAI, said: list[Part]
) -> None:
    provider.reply(raw(b":\n"), *said, hold(asyncio.Event()))
    answer = asyncio.create_task(model.answer(REQUEST, ignore))
    async with asyncio.timeout(10):
        request = await provider.received()
        answer.cancel()
        with pytest.raises(asyncio.CancelledError):
            await answer
        await request.disconnected.wait()


async def test_an_error_of_emit_is_not_taken_for_the_providers(
    provider: MockProvider, model: OpenAI
) -> None:
    async def emit(text: str) -> None:
        raise ValueError(text)

    provider.reply(say("x"), hold(asyncio.Event()))
    with pytest.raises(ValueError, match="x"):
        await model.answer(REQUEST, emit)
    await asyncio.wait_for(provider.requests[0].disconnected.wait(), 10)
