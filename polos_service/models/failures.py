"""How the failures of a model call are told: one sentence, one reason, retry or not."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping
from http import HTTPStatus
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from polos.v1.error_pb2 import FailureReason
from polos_service.errors import StepError
from polos_service.models.codes import PERMANENT, is_fluke, is_quota, status_of, word_status_of
from polos_service.models.delays import asked, reset
from polos_service.models.lost import LostError
from polos_service.models.redact import redact, tells, word
from polos_service.models.told import Told, told_in

NEVER = (HTTPStatus.BAD_REQUEST, HTTPStatus.NOT_FOUND, HTTPStatus.PAYMENT_REQUIRED)
"""Statuses that are not tried again, even if the provider says that they should be."""

EXACT_SECONDS = 100
"""A delay below it is told with its fraction."""


class _Kind(NamedTuple):
    """What a status means.

    Attributes:
        reason: how it is told.
        sentence: what happened to the model `{of}`.
        advice: what to do, as a sentence; may be empty.
        passing: whether it may not happen the next time.

    """

    reason: FailureReason.ValueType
    sentence: str
    advice: str = ""
    passing: bool = False


_REFUSED_KEY = _Kind(
    FailureReason.FAILURE_REASON_MODEL_AUTHENTICATION,
    "access to {of} was refused",
    "Check the key that the service is configured with for this address.",
)
_UNAVAILABLE = _Kind(
    FailureReason.FAILURE_REASON_MODEL_UNAVAILABLE, "{of} is unavailable", passing=True
)
_BAD_REQUEST = _Kind(FailureReason.FAILURE_REASON_MODEL_BAD_REQUEST, "{of} refused the request")
_USED_UP = _Kind(
    FailureReason.FAILURE_REASON_MODEL_RATE_LIMITED,
    "The quota for {of} is used up",
    "Add credit at the provider.",
)

_KINDS = {
    401: _REFUSED_KEY,
    402: _USED_UP,
    403: _REFUSED_KEY,
    404: _Kind(
        FailureReason.FAILURE_REASON_MODEL_NOT_FOUND,
        "{of} was not found",
        "Either the model does not exist, this key cannot access it, or the provider's base URL "
        "is wrong.",
    ),
    407: _Kind(
        FailureReason.FAILURE_REASON_MODEL_AUTHENTICATION,
        "{of} could not be reached",
        "Check the user and password of the proxy.",
    ),
    408: _UNAVAILABLE,
    409: _UNAVAILABLE,
    429: _Kind(
        FailureReason.FAILURE_REASON_MODEL_RATE_LIMITED, "{of} is rate limited", passing=True
    ),
}
"""By status; any other from 500 on is passing, and any other below is not."""


class Failures:
    """Makes the StepErrors of one call.

    Attributes:
        request_id: the provider's id of the request, once it has answered; else empty.
        proxy: HOST:PORT of the proxy that the call goes through; empty if there is none.
        advice: what to do about this address, by HTTP status; where it has nothing, what
            helps in general.

    """

    def __init__(self, host: str, model: str, secrets: Iterable[str]) -> None:
        self._host = host
        self._model = model
        self._secrets = tuple(secrets)
        self.request_id = ""
        self.proxy = ""
        self.advice: Mapping[int, str] = {}

    def answered(self, headers: Mapping[str, str]) -> None:
        """Keep what the headers of an answer say about it."""
        told = headers.get("x-request-id") or headers.get("request-id") or ""
        self.request_id = word(told, self._secrets)

    def status(self, status: int, body: object, headers: Mapping[str, str]) -> StepError:
        """The provider answered with an HTTP status other than success.

        Args:
            status: the HTTP status.
            body: what the body says: any JSON value, or text.
            headers: the answer's headers.

        """
        self.answered(headers)
        told = told_in(body)
        how = f"HTTP {status}"
        if told.page and (server := word(headers.get("server", ""), self._secrets)):
            how += f" from {server}"
        if self.proxy:
            how += f" through the proxy {self.proxy}"
        if HTTPStatus.MULTIPLE_CHOICES <= status < HTTPStatus.BAD_REQUEST:
            return self._redirected(how, headers.get("location", ""))
        if (delay := asked(headers)) is not None:
            told.delay = delay
        elif told.delay is None and status == HTTPStatus.TOO_MANY_REQUESTS:
            told.delay = reset(headers)
        # A gateway may answer 500 to what the provider behind it refused for good.
        if status >= HTTPStatus.INTERNAL_SERVER_ERROR and word_status_of(told) in PERMANENT:
            status = word_status_of(told) or status
        if is_fluke(told):
            status = HTTPStatus.INTERNAL_SERVER_ERROR
        error = self._refused(status, how, told)
        should_retry = headers.get("x-should-retry", "").strip().lower()
        if should_retry in ("true", "false") and status not in NEVER and not is_quota(told):
            error.retryable = should_retry == "true"
        return error

    def told(self, error: object) -> StepError:
        """The provider reported an error in an answer with a status of success.

        Args:
            error: what it said: the value of `error`, or the whole event or body; any JSON value,
                JSON text, or text. None if it only said that there was an error.

        """
        told = told_in(error)
        # Without a code nothing says that the fault is there to stay.
        status = status_of(told) or HTTPStatus.INTERNAL_SERVER_ERROR
        return self._refused(status, "error in the answer", told)

    def _refused(self, status: int, how: str, told: Told) -> StepError:
        other = _BAD_REQUEST if status < HTTPStatus.INTERNAL_SERVER_ERROR else _UNAVAILABLE
        kind = _KINDS.get(status, other)
        advice = self.advice.get(status, kind.advice)
        if is_quota(told):
            kind, advice = _USED_UP, _USED_UP.advice
        message = f"{kind.sentence.format(of=self.of)} ({how}){self._said(told)} {advice}"
        delay = told.delay if kind.passing else None
        if delay is not None:
            seconds = f"{delay:.0f}" if delay >= EXACT_SECONDS else f"{delay:.3g}"
            message += f"The provider asks to wait {seconds} s."
        return self._error(kind.reason, message.rstrip(), retryable=kind.passing, retry_after=delay)

    def _redirected(self, how: str, location: str) -> StepError:
        """Return the failure; of where it leads only the host is told: the rest may be secret."""
        host = ""
        with contextlib.suppress(ValueError):
            host = word(urlsplit(location).netloc.rpartition("@")[2], self._secrets)
        target = f" to {host}" if host else ""
        return self._error(
            FailureReason.FAILURE_REASON_MODEL_BAD_REQUEST,
            f"{self.of} redirects{target} ({how}), and redirects are not followed. "
            "Check the provider's base URL.",
        )

    def lost(self, lost: LostError, *, after_output: bool) -> StepError:
        """No answer came, or the connection failed before or after the model said something."""
        what = redact(lost.what, self._secrets)
        if self.proxy and self.proxy not in what:
            what += f" (through the proxy {self.proxy})"
        if after_output:
            return self.cut_short(what)
        if lost.malformed:
            return self._error(
                FailureReason.FAILURE_REASON_MODEL_MALFORMED,
                f"The answer of {self.of} is not valid HTTP: {what}. "
                "Check the provider's base URL.",
            )
        return self._error(
            FailureReason.FAILURE_REASON_MODEL_UNAVAILABLE,
            f"{self.of} could not be reached: {what}.",
            retryable=lost.retryable,
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

    def another_api(self, event: Mapping[str, Any]) -> StepError | None:
        """Return the failure if an event that nobody expects begins an answer of another API."""
        kind = event.get("type")
        if "choices" in event:
            what = "a chat completion"
        elif kind == "response.created" or event.get("object") == "response":
            what = "an answer of the Responses API"
        elif kind in ("message", "message_start"):
            what = "an answer of the Messages API"
        else:
            return None
        advice = "check the provider, the provider_llm_api and the base URL of the agent"
        return self.malformed(f"it is {what}; {advice}", retryable=False)

    def not_an_answer(self, body: bytes, *, is_json: bool) -> StepError:
        """The provider sent something else with a status of success.

        Args:
            body: its beginning.
            is_json: whether the body is a JSON text: its words are those of an error.

        """
        told = told_in(body)
        speaks = is_json and told.message and told.message not in told.codes
        if speaks or status_of(told) is not None:
            return self.told(body)
        said = f" It says{self._said(told)}" if told.message else ""
        return self._error(
            FailureReason.FAILURE_REASON_MODEL_MALFORMED,
            f"The answer of {self.of} violates the protocol: it is neither an event stream nor an "
            f"answer in JSON; check the base URL.{said}",
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

    def _said(self, told: Told) -> str:
        """Return the provider's message as the end of a sentence."""
        message = redact(told.message, self._secrets)
        if not message:
            return "."
        return f": {message}" if message.endswith((".", "!", "?", "…")) else f": {message}."

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
