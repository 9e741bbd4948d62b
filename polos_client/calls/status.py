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
    PolosError,
    QuotaExceeded,
    StoreUnavailable,
    TooManyCalls,
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


PLAINTEXT = (
    "does it speak TLS, with a certificate that is trusted here? `polos serve` alone is plaintext: "
    "name it HOST:PORT or http://HOST:PORT, without tls"
)
"""What to do where a service cannot be reached over TLS."""

_START = "start one with `polos serve`, or set POLOS_ADDRESS"


def to_error(error: grpc.aio.AioRpcError, address: str) -> PolosError:
    """Return the domain error that a failed call stands for.

    Args:
        error: what grpc raised.
        address: where the call went, for the message.

    Returns:
        The CallError that the service raised, as the same class; ConnectionLost where no
        handler of it answered.

    """
    status = _status(error)
    info = None if status is None else _detail(status, ErrorInfo)
    if status is None or info is None or info.domain != ERROR_DOMAIN:
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
    return isinstance(meaning, Draining | StoreUnavailable | TooManyCalls)


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


def _unreached(error: grpc.aio.AioRpcError, address: str) -> str:
    said = f"{error.code().name}: {error.details() or 'no details'}"
    if error.code() is grpc.StatusCode.UNAVAILABLE:
        advice = PLAINTEXT if "handshake failed" in said else _START
        return f"no Polos service can be reached at {address} ({said}); {advice}"
    if error.code() is grpc.StatusCode.UNIMPLEMENTED:
        return f"the server at {address} is not a Polos service of this version ({said})"
    return f"the call to {address} failed ({said}); it may be retried"
