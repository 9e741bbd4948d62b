"""From domain errors to statuses: one table, and the interceptor that applies it."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from itertools import islice
from typing import Any, NoReturn

import grpc
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.message import DecodeError, Message
from google.rpc.code_pb2 import Code
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo, RetryInfo
from google.rpc.status_pb2 import Status
from grpc_status import rpc_status

from polos_client import errors
from polos_service.logs import get_logger

DOMAIN = "polos.v1"

CODES: dict[type[errors.CallError], Code] = {
    errors.AgentNotFound: Code.NOT_FOUND,
    errors.RunNotFound: Code.NOT_FOUND,
    errors.RunExpired: Code.NOT_FOUND,
    errors.InvalidRequest: Code.INVALID_ARGUMENT,
    errors.RequestIdReused: Code.ALREADY_EXISTS,
    errors.RunNotFinished: Code.FAILED_PRECONDITION,
    errors.CursorAhead: Code.OUT_OF_RANGE,
    errors.TooManyRuns: Code.RESOURCE_EXHAUSTED,
    errors.TooLarge: Code.RESOURCE_EXHAUSTED,
    errors.Draining: Code.UNAVAILABLE,
    errors.StoreUnavailable: Code.UNAVAILABLE,
    errors.Unauthenticated: Code.UNAUTHENTICATED,
    errors.PermissionDenied: Code.PERMISSION_DENIED,
    errors.InternalError: Code.INTERNAL,
}
"""The status of every domain error; the client's table is its inverse."""

STORE_RETRY = 1.0
"""Seconds after which a store that failed is worth another call."""

MESSAGE_LIMIT = 600
VALUE_LIMIT = 300
FIELD_LIMIT = 100
WRONG_LIMIT = 400
"""Bytes of a status's message, of a value in its metadata, of a field, and of what is wrong
with it. A status travels in headers, of which gRPC takes 8 KiB in all."""

VIOLATIONS = 5
"""Fields that are told to be wrong, at most."""

log = get_logger(__name__)


def to_status(error: errors.CallError) -> Status:
    """Return the status that tells the error to any language."""
    details: list[Message] = [
        ErrorInfo(
            reason=error.reason,
            domain=DOMAIN,
            metadata={name: short(value, VALUE_LIMIT) for name, value in error.metadata.items()},
        )
    ]
    if isinstance(error, errors.InvalidRequest):
        details.append(
            BadRequest(
                field_violations=[
                    BadRequest.FieldViolation(
                        field=short(field, FIELD_LIMIT), description=short(what, WRONG_LIMIT)
                    )
                    for field, what in islice(error.violations.items(), VIOLATIONS)
                ]
            )
        )
    retry_after = STORE_RETRY if isinstance(error, errors.StoreUnavailable) else error.retry_after
    if retry_after is not None:
        retry = RetryInfo()
        retry.retry_delay.FromMilliseconds(round(retry_after * 1000))
        details.append(retry)
    return Status(
        code=CODES[type(error)],
        message=short(str(error), MESSAGE_LIMIT),
        details=map(packed, details),
    )


def short(text: str, limit: int) -> str:
    """Return the text, cut to so many bytes."""
    encoded = text.encode()
    if len(encoded) <= limit:
        return text
    return encoded[: limit - 3].decode(errors="ignore") + "…"


def packed(message: Message) -> AnyMessage:
    """Return the message as an Any."""
    wrapped = AnyMessage()
    wrapped.Pack(message)
    return wrapped


def internal(method: str, error: Exception) -> errors.InternalError:
    """Log an unexpected exception, and return the error that names the log's entry only."""
    error_id = uuid.uuid4().hex
    log.error("call_failed", method=method, error_id=error_id, exc_info=error)
    return errors.InternalError(
        f"The service failed. Its log has the rest under {error_id}.", error_id=error_id
    )


Handler = Callable[[Any, Any], Any]


class ErrorInterceptor(grpc.aio.ServerInterceptor):
    """Turns whatever a handler of ours raises into a status; no exception's text gets out."""

    async def intercept_service(
        self,
        continuation: Callable[
            [grpc.HandlerCallDetails], Awaitable[grpc.RpcMethodHandler[Any, Any] | None]
        ],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler[Any, Any] | None:
        """Return the method's handler, guarded."""
        handler = await continuation(handler_call_details)
        method = handler_call_details.method
        if handler is None or not method.startswith(f"/{DOMAIN}."):
            return handler
        if handler.unary_stream is not None:
            return grpc.unary_stream_rpc_method_handler(
                guard_stream(method, handler.unary_stream),
                lenient(handler.request_deserializer),
                handler.response_serializer,
            )
        if handler.unary_unary is not None:
            return grpc.unary_unary_rpc_method_handler(
                guard_unary(method, handler.unary_unary),
                lenient(handler.request_deserializer),
                handler.response_serializer,
            )
        raise TypeError(f"{method} takes a stream of requests; no guard is written for that")


def lenient(parse: Callable[[bytes], Any] | None) -> Callable[[bytes], Any]:
    """Return what parses a request, or returns None: grpc would tell the exception's text."""
    if parse is None:
        raise TypeError("A method of ours parses its requests.")

    def parsed(data: bytes) -> Any:
        try:
            return parse(data)
        except DecodeError:
            return None

    return parsed


def demanded(request: Any) -> Any:
    """Return the request.

    Raises:
        InvalidRequest: its bytes could not be parsed.

    """
    if request is None:
        raise errors.InvalidRequest({"request": "is no message of this method"})
    return request


def guard_unary(method: str, handle: Handler) -> Handler:
    """Guard a method that answers once."""

    async def guarded(request: Any, context: grpc.aio.ServicerContext[Any, Any]) -> Any:
        try:
            return await handle(demanded(request), context)
        except BaseException as error:  # noqa: BLE001 - nothing may get out as it is
            await refuse(method, context, error)

    return guarded


def guard_stream(method: str, handle: Handler) -> Handler:
    """Guard a method that streams."""

    async def guarded(
        request: Any, context: grpc.aio.ServicerContext[Any, Any]
    ) -> AsyncIterator[Any]:
        try:
            async for response in handle(demanded(request), context):
                yield response
        except GeneratorExit:
            raise
        except BaseException as error:  # noqa: BLE001 - nothing may get out as it is
            await refuse(method, context, error)

    return guarded


async def refuse(
    method: str, context: grpc.aio.ServicerContext[Any, Any], error: BaseException
) -> NoReturn:
    """End the call with the error's status.

    A cancellation that the caller did not ask for must not leak: grpc would never end
    the call, and its reader would hang.
    """
    if isinstance(error, asyncio.CancelledError):
        if context.cancelled():
            raise error
        error = errors.Draining("The service ended the call. Try again.", retry_after=0.0)
    elif not isinstance(error, Exception):
        raise error
    elif not isinstance(error, errors.CallError):
        error = internal(method, error)
    await context.abort_with_status(rpc_status.to_status(to_status(error)))
    raise AssertionError("abort_with_status raises")
