"""How the failures of a chat completion are told: one sentence, one reason, retry or not."""

from __future__ import annotations

import email.utils
import math
import re
import time
from collections.abc import Iterable, Mapping
from http import HTTPStatus

from polos.v1.error_pb2 import FailureReason
from polos_service.errors import StepError
from polos_service.models.redact import redact, tells, word

STATUS_OF_CODE = {
    "invalid_api_key": 401,
    "authentication_error": 401,
    "permission_error": 403,
    "model_not_found": 404,
    "not_found_error": 404,
    "invalid_request_error": 400,
    "context_length_exceeded": 400,
    "insufficient_quota": 429,
    "rate_limit_exceeded": 429,
    "rate_limit_error": 429,
}
"""The HTTP status that an error inside a stream stands for, by its code or type."""


PASSING = (HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.CONFLICT)
"""Statuses below 500 that a later attempt may not meet."""


class Failures:
    """Makes the StepErrors of one call.

    Attributes:
        request_id: the provider's id of the request, once it has answered; else empty.

    """

    def __init__(self, host: str, model: str, secrets: Iterable[str]) -> None:
        self._host = host
        self._model = model
        self._secrets = tuple(secrets)
        self.request_id = ""

    def answered(self, headers: Mapping[str, str]) -> None:
        """Keep what the headers of an answer say about it."""
        self.request_id = word(headers.get("x-request-id", ""), self._secrets)

    def status(self, status: int, body: object, headers: Mapping[str, str]) -> StepError:
        """The provider answered with an HTTP status other than success.

        Args:
            status: the HTTP status.
            body: the decoded body, or its `error`.
            headers: the answer's headers.

        """
        self.answered(headers)
        return self._refused(status, f"HTTP {status}", body, _retry_after(headers))

    def told(self, error: object) -> StepError:
        """The provider reported an `error` inside the stream."""
        return self._refused(_status_told(error), "error in the stream", error, None)

    def _refused(self, status: int, how: str, body: object, retry_after: float | None) -> StepError:
        if status in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
            # The provider's own text is not shown: it quotes the key.
            return self._error(
                FailureReason.FAILURE_REASON_MODEL_AUTHENTICATION,
                f"{self.of} was refused ({how}): the provider rejected the service's key. "
                "Check the key that the service is configured with for this address.",
            )
        if status == HTTPStatus.NOT_FOUND:
            return self._error(
                FailureReason.FAILURE_REASON_MODEL_NOT_FOUND,
                f"{self.of} was not found ({how}): the model does not exist, this key "
                "cannot access it, or the provider's base URL is wrong.",
            )
        if status in (HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.PAYMENT_REQUIRED):
            return self._limited(status, how, body, retry_after)
        if status in PASSING or status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            return self._error(
                FailureReason.FAILURE_REASON_MODEL_UNAVAILABLE,
                f"{self.of} is unavailable ({how}).",
                retry_after=retry_after,
                retryable=True,
            )
        return self._error(
            FailureReason.FAILURE_REASON_MODEL_BAD_REQUEST,
            f"{self.of} refused the request ({how}){self._quote(body)}",
        )

    def _limited(self, status: int, how: str, body: object, retry_after: float | None) -> StepError:
        if status == HTTPStatus.PAYMENT_REQUIRED or "insufficient_quota" in _codes(body):
            return self._error(
                FailureReason.FAILURE_REASON_MODEL_RATE_LIMITED,
                f"The quota for {self.of} is used up ({how}). Add credit at the provider.",
            )
        wait = "" if retry_after is None else f"; the provider asks to wait {retry_after:g} s"
        return self._error(
            FailureReason.FAILURE_REASON_MODEL_RATE_LIMITED,
            f"{self.of} is rate limited ({how}){wait}.",
            retry_after=retry_after,
            retryable=True,
        )

    def lost(self, *, after_output: bool) -> StepError:
        """The connection failed, before or after the model said something."""
        if after_output:
            return self.cut_short("the connection failed")
        return self._error(
            FailureReason.FAILURE_REASON_MODEL_UNAVAILABLE,
            f"{self.of} could not be reached: the connection failed.",
            retryable=True,
        )

    def silent(self, error: StepError) -> StepError:
        """The model said nothing for too long, as `error` tells."""
        return self._error(error.reason, error.message, retryable=error.retryable)

    def cut_short(self, how: str = "the stream ended without a finish reason") -> StepError:
        """The answer broke off before its end."""
        return self._error(
            FailureReason.FAILURE_REASON_MODEL_CUT_SHORT,
            f"The answer of {self.of} ended before it was complete: {how}.",
            retryable=True,
        )

    def malformed(self, what: str, *, retryable: bool = True) -> StepError:
        """The provider sent what the protocol does not allow."""
        return self._error(
            FailureReason.FAILURE_REASON_MODEL_MALFORMED,
            f"The answer of {self.of} violates the protocol: {what}.",
            retryable=retryable,
        )

    def too_large(self, limit: str) -> StepError:
        """The answer exceeds `limit`, a number of something."""
        return self._error(
            FailureReason.FAILURE_REASON_OUTPUT_TOO_LARGE,
            f"The answer of {self.of} exceeds {limit}. Limit it with max_output_tokens.",
        )

    def tells(self, text: str) -> bool:
        """Whether a secret of this call stands in a text of the provider's."""
        return tells(text, self._secrets)

    @property
    def of(self) -> str:
        """How a message calls the model."""
        return f"model {self._model!r} at {self._host}"

    def _quote(self, body: object) -> str:
        message = redact(_message(body), self._secrets)
        return f": {message}" if message else "."

    def _error(
        self,
        reason: FailureReason.ValueType,
        message: str,
        *,
        retryable: bool = False,
        retry_after: float | None = None,
    ) -> StepError:
        return StepError(
            reason,
            message[:1].upper() + message[1:],
            retryable=retryable,
            retry_after=retry_after,
            provider_request_id=self.request_id,
        )


def _message(body: object) -> str:
    """Return what an error's body says, in the spellings that servers use."""
    if isinstance(body, Mapping):
        for name in ("message", "detail", "error"):
            if isinstance(body.get(name), str):
                return str(body[name])
        return ""
    return body if isinstance(body, str) else ""


def _codes(body: object) -> list[str]:
    if not isinstance(body, Mapping):
        return []
    codes = (body.get(name) for name in ("code", "type"))
    return [str(code) for code in codes if isinstance(code, str | int)]


def _status_told(error: object) -> int:
    """Return the HTTP status that an error in a stream stands for; 500 if it says none."""
    for code in _codes(error):
        if code in STATUS_OF_CODE:
            return STATUS_OF_CODE[code]
        if re.fullmatch("[45][0-9]{2}", code):
            return int(code)
    return HTTPStatus.INTERNAL_SERVER_ERROR


def _retry_after(headers: Mapping[str, str]) -> float | None:
    """Return the seconds a provider asks to wait: from milliseconds, seconds, or a date."""
    for name, scale in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        seconds = _number(headers.get(name, "")) * scale
        if math.isfinite(seconds):
            return max(seconds, 0.0)
    try:
        date = email.utils.parsedate_to_datetime(headers.get("retry-after", ""))
        return max(date.timestamp() - time.time(), 0.0)
    except (ValueError, OverflowError):
        return None


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan
