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


@pytest.mark.parametrize("code", [401, 403, 404, 408, 429, 500, 503, 529])
async def test_every_status_quotes_the_provider_without_the_key(
    provider: MockProvider, model: Remote, code: int
) -> None:
    said = f"No {KEY}, nor {KEY[:10]}..., here (sk-abc***xyz)"
    provider.reply(status(code, {"error": {"message": said}}))
    message = (await failure(model)).message
    assert f"(HTTP {code}): No [hidden], nor [hidden]..., here [hidden]. " in f"{message} "


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
        ({"retry_after": "1m30s"}, 90.0),
        ({"retry_after": "-1"}, None),
        ({"retry_after": "nan"}, None),
        ({"retry_after": "1e9999"}, None),
        ({"retry_after": "Fri, 31 Dec 9999 23:59:59 GMT"}, None),
        ({"retry_after": "Fri, 31 Dec 1999 23:59:59 GMT"}, None),
        ({"retry_after_ms": "-5", "retry_after": "9"}, 9.0),
        ({"x_ratelimit_reset_requests": "1m30s"}, 90.0),
        ({"x_ratelimit_reset_tokens": "6m0s"}, 360.0),
        ({"x_ratelimit_reset_requests": "20ms", "x_ratelimit_reset_tokens": "2.5s"}, 2.5),
        (
            {
                "x_ratelimit_reset_requests": "9s",
                "x_ratelimit_remaining_requests": "3",
                "x_ratelimit_reset_tokens": "2s",
                "x_ratelimit_remaining_tokens": "0",
            },
            2.0,
        ),
        ({"x_ratelimit_reset_requests": "6m0s", "retry_after": "1"}, 1.0),
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


@pytest.mark.parametrize(
    ("message", "seconds"),
    [
        ("Rate limit reached. Please try again in 2.5s. Visit https://x for more.", 2.5),
        ("Please retry in 2.5s.", 2.5),
        ("Try again in 1m3s", 63.0),
        ("Limit 3, used 3. Please retry your request in 30 seconds.", 30.0),
        ("try again in 250ms", 0.25),
        ("Please retry after 26 seconds.", 26.0),
        ("Retry-After: 5", 5.0),
        ("Please wait 1 minute and 5 seconds", 65.0),
        ("Try again in 1h2m3.5s", 3723.5),
        ("Limit: 3 of 7", None),
        ("Try again in 99999 days", None),
        ("Try again later", None),
    ],
)
async def test_a_message_may_say_how_long_to_wait(
    provider: MockProvider, model: Remote, message: str, seconds: float | None
) -> None:
    provider.reply(status(429, {"error": {"message": message}}, x_ratelimit_reset_requests="0s"))
    told = (await failure(model)).retry_after
    assert told == (0.0 if seconds is None else seconds)


async def test_a_body_may_tell_the_delay_as_google_does(
    provider: MockProvider, model: Remote
) -> None:
    details = [
        {"@type": "type.googleapis.com/google.rpc.QuotaFailure", "violations": [{}]},
        {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "2.5s"},
    ]
    body = [{"error": {"code": 429, "status": "RESOURCE_EXHAUSTED", "details": details}}]
    provider.reply(status(429, body))
    error = await failure(model)
    assert (error.retryable, error.retry_after) == (True, 2.5)
    assert "The provider asks to wait 2.5 s." in error.message


@pytest.mark.parametrize(
    ("code", "should_retry", "retryable"),
    [
        (400, "true", False),
        (404, "true", False),
        (403, "true", True),
        (429, "false", False),
        (500, "false", False),
        (500, "perhaps", True),
    ],
)
async def test_the_provider_may_say_whether_to_try_again(
    provider: MockProvider, model: Remote, code: int, should_retry: str, *, retryable: bool
) -> None:
    provider.reply(status(code, x_should_retry=should_retry))
    assert (await failure(model)).retryable is retryable


@pytest.mark.parametrize("code", [408, 409, 429, 500, 502, 503, 504, 529])
async def test_what_may_pass_is_left_to_the_step_to_try_again(
    provider: MockProvider, model: Remote, code: int
) -> None:
    provider.reply(status(code, x_should_retry="true", retry_after_ms="1"))
    provider.reply(say("x"))
    assert (await failure(model)).retryable
    assert len(provider.requests) == 1


async def test_a_gateway_that_answers_500_for_a_lasting_refusal_is_understood(
    provider: MockProvider, model: Remote
) -> None:
    body = {"error": {"message": "too many tokens", "code": "context_length_exceeded"}}
    provider.reply(status(500, body))
    error = await failure(model)
    assert (error.reason, error.retryable) == (
        FailureReason.FAILURE_REASON_MODEL_BAD_REQUEST,
        False,
    )
    assert "(HTTP 500): too many tokens." in error.message


async def test_a_page_of_a_gateway_is_told_by_its_title_and_its_server(
    provider: MockProvider, model: Remote
) -> None:
    page = b"<html><head><title>502 Bad Gateway</title></head><body>secret</body></html>"
    provider.reply(status(502, page, content_type="text/html", server="nginx/1.27"))
    error = await failure(model)
    assert "is unavailable (HTTP 502 from nginx/1.27): 502 Bad Gateway." in error.message
    assert "secret" not in error.message


@pytest.mark.parametrize(
    ("location", "leads"),
    [
        (f"https://elsewhere.example/v1?key={KEY}", " to elsewhere.example"),
        (f"https://me:{KEY}@elsewhere.example:8/", " to elsewhere.example:8"),
        (f"https://{KEY}.example/", ""),
        ("/login", ""),
        ("https://[::1", ""),
    ],
)
async def test_of_where_a_redirect_leads_the_host_is_told(
    provider: MockProvider, model: Remote, location: str, leads: str
) -> None:
    provider.reply(status(307, location=location))
    error = await failure(model)
    assert f"redirects{leads} (HTTP 307), and redirects are not followed" in error.message
    assert (error.reason, error.retryable) == (
        FailureReason.FAILURE_REASON_MODEL_BAD_REQUEST,
        False,
    )


async def test_what_is_not_a_key_is_not_hidden(provider: MockProvider) -> None:
    provider.reply(status(400, {"error": {"message": "none of the tools is known"}}))
    model = openai(base_url=provider.url)  # without a key, "none" is sent
    try:
        assert "none of the tools is known" in (await failure(model)).message
    finally:
        await model.close()
