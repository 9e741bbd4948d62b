"""How the failures of a model call are told: one sentence, one reason, retry or not."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping
from http import HTTPStatus
from urllib.parse import urlsplit

from polos.v1.error_pb2 import FailureReason
from polos_service.errors import StepError
from polos_service.models.codes import PERMANENT, is_quota, status_of, word_status_of
from polos_service.models.delays import asked, reset
from polos_service.models.lost import LostError
from polos_service.models.redact import redact, tells, word
from polos_service.models.told import Told, told_in

PASSING = (HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.CONFLICT)
"""Statuses below 500 that a later attempt may not meet."""

KEYS = (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN, HTTPStatus.PROXY_AUTHENTICATION_REQUIRED)
"""Statuses of calls whose credentials are refused."""

NEVER = (HTTPStatus.BAD_REQUEST, HTTPStatus.NOT_FOUND, HTTPStatus.PAYMENT_REQUIRED)
"""Statuses that are not tried again, even if the provider says that they should be."""


class Failures:
    """Makes the StepErrors of one call.

    Attributes:
        request_id: the provider's id of the request, once it has answered; else empty.
        proxy: HOST:PORT of the proxy that the call goes through; empty if there is none.

    """

    def __init__(self, host: str, model: str, secrets: Iterable[str]) -> None:
        self._host = host
        self._model = model
        self._secrets = tuple(secrets)
        self.request_id = ""
        self.proxy = ""

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
        said = self._said(told)
        if status in KEYS:
            refusal = said or ": the provider rejected the service's key."
            return self._error(
                FailureReason.FAILURE_REASON_MODEL_AUTHENTICATION,
                f"{self.of} was refused ({how}){refusal} "
                "Check the key that the service is configured with for this address.",
            )
        if status == HTTPStatus.NOT_FOUND:
            return self._error(
                FailureReason.FAILURE_REASON_MODEL_NOT_FOUND,
                f"{self.of} was not found ({how}){said or '.'} Either the model does not exist, "
                "this key cannot access it, or the provider's base URL is wrong.",
            )
        if status == HTTPStatus.PAYMENT_REQUIRED or is_quota(told):
            return self._error(
                FailureReason.FAILURE_REASON_MODEL_RATE_LIMITED,
                f"The quota for {self.of} is used up ({how}){said or '.'} "
                "Add credit at the provider.",
            )
        if status == HTTPStatus.TOO_MANY_REQUESTS:
            return self._passing(
                FailureReason.FAILURE_REASON_MODEL_RATE_LIMITED,
                f"{self.of} is rate limited ({how}){said or '.'}",
                told.delay,
            )
        if status in PASSING or status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            return self._passing(
                FailureReason.FAILURE_REASON_MODEL_UNAVAILABLE,
                f"{self.of} is unavailable ({how}){said or '.'}",
                told.delay,
            )
        return self._error(
            FailureReason.FAILURE_REASON_MODEL_BAD_REQUEST,
            f"{self.of} refused the request ({how}){said or '.'}",
        )

    def _passing(
        self, reason: FailureReason.ValueType, message: str, delay: float | None
    ) -> StepError:
        wait = "" if delay is None else f" The provider asks to wait {delay:.3g} s."
        if delay is not None and delay >= 1000:  # noqa: PLR2004 - %g would round it
            wait = f" The provider asks to wait {delay:.0f} s."
        return self._error(reason, f"{message}{wait}", retryable=True, retry_after=delay)

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
        if lost.malformed:
            return self._error(
                FailureReason.FAILURE_REASON_MODEL_MALFORMED,
                f"The answer of {self.of} is not valid HTTP: {what}. "
                "Check the provider's base URL.",
            )
        if after_output:
            return self.cut_short(what)
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
        """Return the provider's message as the end of a sentence; empty if there is none."""
        message = redact(told.message, self._secrets)
        if not message:
            return ""
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
