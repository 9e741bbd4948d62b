"""What a failed call means: the inverse of the service's table of errors."""

from __future__ import annotations

from typing import TypeVar

import grpc
from google.protobuf.message import Message
from google.rpc.error_details_pb2 import (
    BadRequest,
    ErrorInfo,
    RetryInfo,
)
from google.rpc.status_pb2 import Status
from grpc_status import rpc_status

from polos_client.errors import (
    CALL_ERRORS,
    CallError,
    ConnectionLost,
    Draining,
    InvalidRequest,
    PermissionDenied,
    PolosError,
    QuotaExceeded,
    StoreUnavailable,
    TooManyCalls,
    Unauthenticated,
)
from polos_client.event import seconds
from polos_client.wire import ERROR_DOMAIN

_Detail = TypeVar("_Detail", bound=Message)

_DROPPED = {
    grpc.StatusCode.UNAVAILABLE,  # nobody there, or a proxy that has nobody behind it
    grpc.StatusCode.INTERNAL,  # RST_STREAM
    grpc.StatusCode.UNKNOWN,  # "Stream removed"
    grpc.StatusCode.CANCELLED,  # a server that stops ends its streams so
    grpc.StatusCode.DEADLINE_EXCEEDED,  # a proxy's bound, or ours on a unary call
}
"""What a dropped connection looks like, where no ErrorInfo says that a handler refused."""


TRANSIENT = (Draining, StoreUnavailable, TooManyCalls)
"""Refusals after which the same call may succeed."""

START = "start one with `polos serve`, or set POLOS_ADDRESS"
"""What to do where nobody says why a service cannot be reached."""

_BEFORE = {
    grpc.StatusCode.UNAUTHENTICATED: Unauthenticated,
    grpc.StatusCode.PERMISSION_DENIED: PermissionDenied,
}
"""What a refusal means that something in front of the service sent, a gateway for example."""


def to_error(error: grpc.aio.AioRpcError, address: str) -> PolosError:
    """Return the domain error that a failed call stands for.

    Args:
        error: what grpc raised.
        address: where the call went, for the message.

    Returns:
        The CallError that the service raised, as the same class; that of a gateway in front of
        it that refused the credentials; else ConnectionLost.

    """
    status = _status(error)
    info = None if status is None else _detail(status, ErrorInfo)
    if status is None or info is None or info.domain != ERROR_DOMAIN:
        if refused := _BEFORE.get(error.code()):
            return refused(f"something in front of {address} refused the call: {_said(error)}")
        return ConnectionLost(_unreached(error, address))
    cls = CALL_ERRORS.get(info.reason, CallError)
    if cls is InvalidRequest:
        return InvalidRequest(_violations(status))
    rebuilt = cls(status.message, retry_after=_retry_after(status))
    rebuilt.metadata = dict(info.metadata)
    return rebuilt


def is_transient(error: grpc.aio.AioRpcError, meaning: PolosError) -> bool:
    """Return True if the same call may succeed when it is made again.

    Args:
        error: what grpc raised.
        meaning: what `to_error` made of it.

    """
    if isinstance(meaning, ConnectionLost):
        return error.code() in _DROPPED
    if isinstance(meaning, QuotaExceeded):
        # A reader that comes back may find the place of its former stream not free yet.
        return meaning.metadata.get("limit") == "streams"
    return isinstance(meaning, TRANSIENT)


def _status(error: grpc.aio.AioRpcError) -> Status | None:
    try:
        return rpc_status.from_call(error)  # type: ignore[arg-type]
    except ValueError:  # details that contradict the status: some proxy's, not ours
        return None


def _detail(status: Status, kind: type[_Detail]) -> _Detail | None:
    for packed in status.details:
        detail = kind()
        if packed.Unpack(detail):
            return detail
    return None


def _violations(status: Status) -> dict[str, str]:
    request = _detail(status, BadRequest) or BadRequest()
    return {one.field: one.description for one in request.field_violations}


def _retry_after(status: Status) -> float | None:
    hint = _detail(status, RetryInfo)
    return None if hint is None else seconds(hint.retry_delay)


def unreached(address: str, what: str, advice: str = START) -> ConnectionLost:
    """Return the error of a service that cannot be reached.

    Args:
        address: where it should be, and what it is reached through.
        what: why, as far as it is known.
        advice: what to do.

    """
    return ConnectionLost(f"no Polos service can be reached at {address} ({what}); {advice}")


def _said(error: grpc.aio.AioRpcError) -> str:
    return f"{error.code().name}: {error.details() or 'no details'}"


def _unreached(error: grpc.aio.AioRpcError, address: str) -> str:
    said = _said(error)
    if error.code() is grpc.StatusCode.UNAVAILABLE:
        return str(unreached(address, said))
    if error.code() is grpc.StatusCode.UNIMPLEMENTED:
        return f"the server at {address} is not a Polos service of this version ({said})"
    return f"the call to {address} failed ({said}); it may be retried"
