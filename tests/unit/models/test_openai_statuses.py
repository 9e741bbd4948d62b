"""The provider `openai` over real HTTP: HTTP statuses."""

from __future__ import annotations

import email.utils
import time
from typing import Any

import pytest

from polos.v1.error_pb2 import FailureReason
from polos_service.models.remote import Remote
from tests.support.mock_answers import say, status
from tests.support.mock_provider import MockProvider
from tests.support.models import KEY, failure, openai


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
    model: Remote,
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
    provider: MockProvider, model: Remote, body: dict[str, Any]
) -> None:
    provider.reply(status(400, body))
    assert "context is too long" in (await failure(model)).message


async def test_a_quoted_message_is_short_and_without_keys(
    provider: MockProvider, model: Remote
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
    provider: MockProvider, model: Remote, code: int
) -> None:
    provider.reply(status(code, {"error": {"message": "Incorrect key provided: whatever"}}))
    message = (await failure(model)).message
    assert "whatever" not in message
    assert "Check the key" in message


async def test_a_used_up_quota_is_not_tried_again(provider: MockProvider, model: Remote) -> None:
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
    provider: MockProvider, model: Remote, headers: dict[str, str], seconds: float | None
) -> None:
    provider.reply(status(429, **headers))
    assert (await failure(model)).retry_after == seconds


async def test_a_rate_limit_may_name_a_date(provider: MockProvider, model: Remote) -> None:
    provider.reply(status(429, retry_after=email.utils.formatdate(time.time() + 60, usegmt=True)))
    waits = (await failure(model)).retry_after
    assert waits is not None
    assert 50 < waits <= 61


@pytest.mark.parametrize("code", [408, 409, 429, 503])
async def test_what_may_pass_is_left_to_the_step_to_try_again(
    provider: MockProvider, model: Remote, code: int
) -> None:
    provider.reply(status(code, x_should_retry="true", retry_after_ms="1"))
    provider.reply(say("x"))
    assert (await failure(model)).retryable
    assert len(provider.requests) == 1


async def test_what_is_no_key_is_not_hidden(provider: MockProvider) -> None:
    provider.reply(status(400, {"error": {"message": "none of the tools is known"}}))
    model = openai(base_url=provider.url)  # without a key, "none" is sent
    try:
        assert "none of the tools is known" in (await failure(model)).message
    finally:
        await model.close()
