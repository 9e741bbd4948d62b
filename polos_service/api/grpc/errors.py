"""From domain errors to statuses: one table."""

from __future__ import annotations

import uuid
from contextlib import suppress
from itertools import islice

from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.message import Message
from google.rpc.code_pb2 import Code
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo, QuotaFailure, RetryInfo
from google.rpc.status_pb2 import Status

from polos_client import errors
from polos_client.wire import ERROR_DOMAIN
from polos_service.logs import get_logger

CODES: dict[type[errors.CallError], Code] = {
    errors.AgentNotFound: Code.NOT_FOUND,
    errors.RunNotFound: Code.NOT_FOUND,
    errors.RunExpired: Code.NOT_FOUND,
    errors.InvalidRequest: Code.INVALID_ARGUMENT,
    errors.RequestIdReused: Code.ALREADY_EXISTS,
    errors.RunNotFinished: Code.FAILED_PRECONDITION,
    errors.CursorAhead: Code.OUT_OF_RANGE,
    errors.TooManyRuns: Code.RESOURCE_EXHAUSTED,
    errors.QuotaExceeded: Code.RESOURCE_EXHAUSTED,
    errors.TooManyCalls: Code.RESOURCE_EXHAUSTED,
    errors.TooManyCommands: Code.RESOURCE_EXHAUSTED,
    errors.TooLarge: Code.RESOURCE_EXHAUSTED,
    errors.Draining: Code.UNAVAILABLE,
    errors.StoreUnavailable: Code.UNAVAILABLE,
    errors.Unauthenticated: Code.UNAUTHENTICATED,
    errors.PermissionDenied: Code.PERMISSION_DENIED,
    errors.KeyNotFound: Code.NOT_FOUND,
    errors.TooManyKeys: Code.RESOURCE_EXHAUSTED,
    errors.AlreadyAnswered: Code.FAILED_PRECONDITION,
    errors.WaitExpired: Code.FAILED_PRECONDITION,
    errors.WaitNotOpen: Code.FAILED_PRECONDITION,
    errors.AmbiguousWait: Code.FAILED_PRECONDITION,
    errors.InternalError: Code.INTERNAL,
}
"""The status of every domain error, and of those derived from it; the client's table is its
inverse."""

STORE_RETRY = 1.0
"""Seconds after which a store that failed is worth another call."""

MESSAGE_LIMIT = 600
"""Bytes of a status's message at most. A status travels in headers, of which gRPC takes 8 KiB."""

VALUE_LIMIT = 300
"""Bytes of a value in a status's metadata at most."""

FIELD_LIMIT = 100
"""Bytes of the name of a wrong field at most."""

WRONG_LIMIT = 400
"""Bytes of what is wrong with a field at most."""

VIOLATIONS = 5
"""Wrong fields that a status names at most."""

log = get_logger(__name__)


def status_of(method: str, error: BaseException) -> Status:
    """Return the status of whatever a method raised; one that is not a domain error is INTERNAL."""
    try:
        return to_status(error if isinstance(error, errors.CallError) else internal(method, error))
    except Exception as broken:  # noqa: BLE001 - what the error carries cannot be told
        return to_status(internal(method, broken))


def to_status(error: errors.CallError) -> Status:
    """Return the status that tells the error to any language."""
    details: list[Message] = [
        ErrorInfo(
            reason=error.reason,
            domain=ERROR_DOMAIN,
            metadata={name: short(value, VALUE_LIMIT) for name, value in error.metadata.items()},
        )
    ]
    if isinstance(error, errors.InvalidRequest):
        details.append(
            BadRequest(
                field_violations=[
                    BadRequest.FieldViolation(
                        field=shown(field, FIELD_LIMIT), description=shown(what, WRONG_LIMIT)
                    )
                    for field, what in islice(error.violations.items(), VIOLATIONS)
                ]
            )
        )
    if isinstance(error, errors.QuotaExceeded):
        details.append(quota_failure(error))
    retry_after = STORE_RETRY if isinstance(error, errors.StoreUnavailable) else error.retry_after
    if retry_after is not None:
        retry = RetryInfo()
        retry.retry_delay.FromMilliseconds(round(retry_after * 1000))
        details.append(retry)
    return Status(
        code=next(CODES[cls] for cls in type(error).__mro__ if cls in CODES),
        message=shown(str(error), MESSAGE_LIMIT),
        details=map(packed, details),
    )


def quota_failure(error: errors.QuotaExceeded) -> QuotaFailure:
    """Return what google.rpc has for a limit that was exceeded."""
    project, limit, value = (
        short(error.metadata.get(name, ""), VALUE_LIMIT) for name in ("project", "limit", "value")
    )
    violation = QuotaFailure.Violation(
        subject=f"project:{project}", description=f"{limit} is {value}", quota_id=limit
    )
    return QuotaFailure(violations=[violation])


def short(text: str, limit: int) -> str:
    """Return the text, cut to so many bytes; what is not Unicode in it is escaped."""
    encoded = text.encode(errors="backslashreplace")
    if len(encoded) <= limit:
        return encoded.decode()
    return encoded[: limit - 3].decode(errors="ignore") + "…"


def shown(text: str, limit: int) -> str:
    """Return a text for a person, cut to so many bytes. What it quotes of a caller is visible.

    Control characters and line ends are escaped, and so is whatever else does not print.
    """
    kept = text[: limit + 1]
    return short("".join(one if one.isprintable() else repr(one)[1:-1] for one in kept), limit)


def packed(message: Message) -> AnyMessage:
    """Return the message as an Any."""
    wrapped = AnyMessage()
    wrapped.Pack(message)
    return wrapped


def internal(method: str, error: BaseException) -> errors.InternalError:
    """Log an unexpected exception, and return the error that names the log's entry only."""
    error_id = uuid.uuid4().hex
    with suppress(BaseException):  # the caller is answered even if the log cannot be written
        log.error("call_failed", method=method, error_id=error_id, exc_info=error)
    return errors.InternalError(
        f"The service failed. Its log has the details under {error_id}.", error_id=error_id
    )
