"""What a provider says when it fails is read from any shape, and shown without what is secret."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from polos.v1.error_pb2 import FailureReason
from polos_service.models.failures import Failures
from polos_service.models.remote import Remote
from polos_service.models.told import told_in
from tests.support.hostile_behaviours import KEY_FORMS
from tests.support.mock_answers import event, raw, say, status
from tests.support.mock_provider import MockProvider
from tests.support.models import KEY, failure

AUTH = FailureReason.FAILURE_REASON_MODEL_AUTHENTICATION
BAD = FailureReason.FAILURE_REASON_MODEL_BAD_REQUEST
LIMITED = FailureReason.FAILURE_REASON_MODEL_RATE_LIMITED
MISSING = FailureReason.FAILURE_REASON_MODEL_NOT_FOUND
UNAVAILABLE = FailureReason.FAILURE_REASON_MODEL_UNAVAILABLE

SHAPES: list[tuple[Any, str]] = [
    ({"error": {"message": "m"}}, "m"),
    ([{"error": {"message": "m"}}], "m"),
    ({"detail": [{"msg": "m", "loc": ["body", "x", 0]}]}, "x.0: m"),
    ({"detail": [{"msg": "m"}, {"msg": "n"}, {"msg": "m"}]}, "m; n"),
    ({"detail": "m"}, "m"),
    ({"detail": {"error": "m"}}, "m"),
    ({"errors": [{"message": "m"}]}, "m"),
    ({"errors": ["m"]}, "m"),
    ({"success": False, "errors": [{"code": 7000, "message": "m"}], "messages": []}, "m"),
    ({"message": "m"}, "m"),
    ({"Message": "m", "__type": "ThrottlingException"}, "m"),
    ({"error": "m"}, "m"),
    ({"error": "Bad Request", "message": "m", "statusCode": 400}, "m"),
    ({"error": {"message": {"text": 1, "message": "m"}}}, "m"),
    ({"error": {"error": {"message": "m"}}}, "m"),
    ({"type": "error", "error": {"type": "overloaded_error", "message": "m"}}, "m"),
    ({"object": "error", "message": "m", "code": 400}, "m"),
    ({"error": {"message": "p", "metadata": {"raw": '{"error": {"message": "m"}}'}}}, "p: m"),
    ({"error": {"message": "p", "metadata": {"raw": "m"}}}, "p: m"),
    ({"error": {"message": '{"error": {"message": "m"}}'}}, "m"),
    ({"title": "t", "status": 400, "detail": "m"}, "m"),
    ({"fault": {"faultstring": "m", "detail": {"errorcode": "c"}}}, "m"),
    ({"base_resp": {"status_code": 1002, "status_msg": "m"}}, "m"),
    ({"error": {"code": "overloaded_error"}}, "overloaded_error"),
    ('{"error": {"message": "m"}}', "m"),
    ('"{\\"message\\": \\"m\\"}"', "m"),
    ('data: {"error": {"message": "m"}}\n\n', "m"),
    ('event: error\ndata: {"error": {"message": "m"}}\n\n', "m"),
    ("m", "m"),
    (b"m \xff", "m \N{REPLACEMENT CHARACTER}"),
    ("{not json", "{not json"),
    ("<html><head><title>t &amp; u</title></head><body>m</body></html>", "t & u"),
    ("<!DOCTYPE html><h1>t</h1>", "t"),
    ("<html><body>m</body></html>", ""),
    ('<?xml version="1.0"?><Error><Code>c</Code><Message>m</Message></Error>', "m"),
    ({}, ""),
    ([], ""),
    (None, ""),
    (5, ""),
]


@pytest.mark.parametrize(("value", "message"), SHAPES)
def test_a_message_is_found_in_any_shape(value: object, message: str) -> None:
    assert told_in(value).message == message


@pytest.mark.parametrize("code", [400, 401, 403, 404, 429, 500, 503])
@pytest.mark.parametrize(("value", "message"), [one for one in SHAPES if one[1] == "m"][:17])
async def test_it_is_told_for_every_status(
    provider: MockProvider, model: Remote, code: int, value: object, message: str
) -> None:
    body = value if isinstance(value, bytes) else json.dumps(value).encode()
    provider.reply(status(code, body))
    assert f" (HTTP {code}): {message}." in (await failure(model)).message


@pytest.mark.parametrize(
    ("value", "reason", "retryable"),
    [
        ({"code": 429}, LIMITED, True),
        ({"code": "429"}, LIMITED, True),
        ({"code": "rate_limit_exceeded", "type": "tokens"}, LIMITED, True),
        ({"code": None, "type": "RateLimitError"}, LIMITED, True),
        ({"code": "insufficient_quota", "type": "insufficient_quota"}, LIMITED, False),
        ({"code": 429, "type": "insufficient_quota"}, LIMITED, False),
        ({"code": 402}, LIMITED, False),
        ({"status": "RESOURCE_EXHAUSTED"}, LIMITED, True),
        ({"type": "overloaded_error"}, UNAVAILABLE, True),
        ({"code": 529}, UNAVAILABLE, True),
        ({"type": "server_error"}, UNAVAILABLE, True),
        ({"type": "InternalServerError"}, UNAVAILABLE, True),
        ({"code": "timeout"}, UNAVAILABLE, True),
        ({"status": "DEADLINE_EXCEEDED"}, UNAVAILABLE, True),
        ({"status": "UNAVAILABLE"}, UNAVAILABLE, True),
        ({"status": "ABORTED"}, UNAVAILABLE, True),
        ({"code": "context_length_exceeded", "type": "invalid_request_error"}, BAD, False),
        ({"code": "content_policy_violation"}, BAD, False),
        ({"code": "content_filter", "innererror": {"code": "Any"}}, BAD, False),
        ({"type": "BadRequestError", "code": 400}, BAD, False),
        ({"status": "INVALID_ARGUMENT"}, BAD, False),
        ({"type": "invalid_request_error"}, BAD, False),
        ({"code": "model_not_found", "type": "invalid_request_error"}, MISSING, False),
        ({"status": "NOT_FOUND"}, MISSING, False),
        ({"code": "invalid_api_key"}, AUTH, False),
        ({"status": "UNAUTHENTICATED"}, AUTH, False),
        ({"type": "permission_error"}, AUTH, False),
        ({"code": "nobody_knows"}, UNAVAILABLE, True),
        ({"code": [[]]}, UNAVAILABLE, True),
        ("Overloaded", UNAVAILABLE, True),
        ("This model's maximum context length is 8192 tokens", BAD, False),
        ("model 'x' not found", MISSING, False),
        ("model requires more memory", UNAVAILABLE, True),
        ("", UNAVAILABLE, True),
    ],
)
def test_the_code_of_an_error_in_an_answer_decides_whether_it_is_tried_again(
    value: object, reason: FailureReason.ValueType, *, retryable: bool
) -> None:
    failures = Failures("host", "model", [])
    whole = value if isinstance(value, str) else {"error": {"message": "m", **dict(value)}}  # type: ignore[call-overload]  # an object
    inner = whole if isinstance(whole, str) else whole["error"]
    for told in (whole, inner, [whole], json.dumps(whole)):
        error = failures.told(told)
        assert (error.reason, error.retryable) == (reason, retryable)


async def test_an_error_in_the_stream_is_told(provider: MockProvider, model: Remote) -> None:
    provider.reply(say("Hel"), raw(event({"error": f"needs more memory than {KEY} has"})))
    message = (await failure(model)).message
    assert message.endswith(
        "is unavailable (error in the answer): needs more memory than [hidden] has."
    )


VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text()
    | st.sampled_from([KEY, f"no {KEY}!", *(form(KEY) for form in KEY_FORMS.values())])
    | st.sampled_from([f'{{"message": "{KEY}"}}', "<html><title>x", "429", "1m30s", "9999999999"]),
    lambda inner: (
        st.lists(inner, max_size=5)
        | st.dictionaries(
            st.sampled_from(
                ["error", "message", "detail", "msg", "loc", "code", "type", "errors", "raw"]
            )
            | st.sampled_from(
                ["metadata", "details", "retryDelay", "retry_after", "param", "status"]
            )
            | st.text(max_size=5),
            inner,
            max_size=5,
        )
    ),
    max_leaves=12,
)


@settings(max_examples=150, deadline=None)
@given(VALUES, st.integers(300, 599), st.dictionaries(st.text(max_size=20), st.text(max_size=20)))
def test_no_value_breaks_the_reading_and_no_secret_is_shown(
    value: object, code: int, headers: dict[str, str]
) -> None:
    failures = Failures("host", "model", [KEY])
    for error in (failures.told(value), failures.status(code, value, headers)):
        assert len(error.message) < 1000
        assert error.message.isprintable()
        assert KEY[:8] not in error.message
        for form in KEY_FORMS.values():
            assert form(KEY) not in error.message
        assert error.retry_after is None or 0 <= error.retry_after < 3e6


@pytest.mark.parametrize("form", KEY_FORMS)
def test_nesting_does_not_hide_a_secret(form: str) -> None:
    value: object = KEY_FORMS[form](KEY)
    for name in ("message", "error", "detail", "errors"):
        value = {name: value}
        assert KEY_FORMS[form](KEY) not in Failures("host", "model", [KEY]).told(value).message


def test_an_error_nested_without_end_is_read() -> None:
    value: object = "m"
    for _ in range(10_000):
        value = {"error": [value]}
    assert Failures("host", "model", []).told(value).retryable
