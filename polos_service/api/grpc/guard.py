"""The interceptor around every method, those of other packages included.

It counts the call, determines who is calling and whether they may, receives the request, and turns
whatever is raised into a status.
Requests are read here and not by grpc: a call that never sends its request is counted and
given up, and a stream does not keep the request that it began with.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from typing import TYPE_CHECKING, Any, NoReturn

import grpc
import grpc.aio
from google.protobuf.message import DecodeError
from grpc_status import rpc_status

from polos_client import errors
from polos_client.wire import root_of
from polos_service.access.identities import Identities
from polos_service.api.grpc.errors import status_of
from polos_service.api.grpc.handlers import CallerMethod, Needs
from polos_service.api.grpc.slots import ProjectStreams, Slots
from polos_service.caller import Caller
from polos_service.pacer import Pacer
from polos_service.store import refusals

REQUEST_WAIT = 20.0
"""Seconds in which a call's request must have arrived."""

Context = grpc.aio.ServicerContext[Any, Any]

if TYPE_CHECKING:  # it takes parameters in its stubs only
    Handler = grpc.RpcMethodHandler[Any, Any]


class Guard(grpc.aio.ServerInterceptor):
    """Bounds the calls, and lets no exception's text out."""

    def __init__(
        self,
        calls: Slots,
        streams: Slots,
        identities: Identities,
        project_streams: ProjectStreams,
    ) -> None:
        """Guard a server.

        Args:
            calls: places for methods that answer once.
            streams: places for methods that stream.
            identities: finds who makes a call.
            project_streams: places for the streams of each project.

        """
        self._project_streams = project_streams
        self._calls = calls
        self._streams = streams
        self._pacer = Pacer()
        self._identities = identities

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Handler | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Handler | None:
        """Return the method's handler, guarded; None if there is no such method."""
        method = handler_call_details.method
        try:
            handler = await continuation(handler_call_details)
            return None if handler is None else self._guarded(method, handler)
        except Exception as error:  # noqa: BLE001 - grpc would never answer the call
            return self._guarded(method, grpc.unary_unary_rpc_method_handler(raising(error)))

    def _guarded(self, method: str, handler: Handler) -> Handler:
        parse = checking(handler.request_deserializer)
        if handler.response_streaming:
            return grpc.stream_stream_rpc_method_handler(
                self._streaming(method, handler), parse, handler.response_serializer
            )
        return grpc.stream_unary_rpc_method_handler(self._answering(method, handler), parse)

    def _answering(self, method: str, handler: Handler) -> Callable[..., Awaitable[bytes]]:
        handle: Any = handler.stream_unary if handler.request_streaming else handler.unary_unary
        serialise: Any = handler.response_serializer or bytes

        async def answer(requests: Any, context: Context) -> bytes:
            try:
                self._calls.take(context)
                answering = await self._for_caller(method, handle, context)
                asked = requests if handler.request_streaming else await received(context)
                response: bytes = serialise(await answering(asked, context))
                return response
            except BaseException as error:  # noqa: BLE001 - nothing may get out as it is
                await refuse(method, context, error)

        return answer

    def _streaming(self, method: str, handler: Handler) -> Callable[..., Awaitable[None]]:
        handle: Any = handler.stream_stream if handler.request_streaming else handler.unary_stream

        async def answer(requests: Any, context: Context) -> None:
            try:
                self._streams.take(context)
                streaming = await self._for_caller(method, handle, context, self._project_streams)
                await self._pacer.next()
                if handler.request_streaming:
                    answers = streaming(requests, context)
                else:
                    answers = streaming(await received(context), context)
                if isinstance(answers, AsyncGenerator):
                    await written(answers, context)
                else:  # it writes by itself
                    await answers
            except BaseException as error:  # noqa: BLE001 - nothing may get out as it is
                await refuse(method, context, error)

        return answer

    async def _for_caller(
        self, method: str, handle: Any, context: Context, streams: ProjectStreams | None = None
    ) -> Callable[..., Any]:
        """Return what handles a call; methods of our own services are told who is calling.

        With `streams`, the call takes one of the places of its project.

        Raises:
            PermissionDenied: the caller may not call the method.
            QuotaExceeded: the project has no place left.
            StoreUnavailable, Unauthenticated: there is no telling who it is.

        """
        if not isinstance(handle, CallerMethod):
            return handle  # type: ignore[no-any-return]  # grpc's own method
        metadata = context.invocation_metadata() or ()
        caller = await self._identities.of(metadata, context.auth_context())
        needs = permitted(method, caller, handle.needs)
        if streams is not None:
            streams.take(caller.project, context)

        def handled(request: Any, context: Context) -> Any:
            if caller.run_id:  # of a run token, which is good for the children of a root, too
                asked = getattr(request, needs.run_field)
                if caller.run_id not in {asked, root_of(asked)}:
                    raise refusals.not_found(asked)
            return handle.function(caller, request, context)

        return handled


def permitted(method: str, caller: Caller, needs: Needs | None) -> Needs:
    """Return what a method needs, if the caller has it.

    Raises:
        PermissionDenied: they do not, or nobody has declared what the method needs.

    """
    if needs is None:
        raise errors.PermissionDenied(f"{method} is not open to callers.", scope="")
    for scope in needs.scopes:
        if not caller.may(scope):
            raise errors.PermissionDenied(
                f"{method} needs the scope {scope}, which the credentials do not have.", scope=scope
            )
    if caller.run_id and not needs.run_field:
        raise errors.PermissionDenied(
            f"{method} does not accept run tokens. Use an API key.", scope=needs.scopes[0]
        )
    return needs


def checking(parse: Callable[[bytes], Any] | None) -> Callable[[bytes], Any]:
    """Return what parses a request, and raises InvalidRequest where it is not one."""

    def parsed(data: bytes) -> Any:
        try:
            return data if parse is None else parse(data)
        except DecodeError:
            what = "is not a message of this method"
            raise errors.InvalidRequest({"request": what}) from None

    return parsed


def raising(error: Exception) -> Callable[[Any, Context], Awaitable[NoReturn]]:
    """Return the handler of a method that cannot be called."""

    async def handle(_: Any, __: Context) -> NoReturn:
        raise error

    return handle


async def received(context: Context) -> Any:
    """Return the request of a call that has one.

    Raises:
        InvalidRequest: it did not come, or is not a message of the method.

    """
    try:
        async with asyncio.timeout(REQUEST_WAIT):
            request = await context.read()
    except TimeoutError:
        what = f"did not arrive within {REQUEST_WAIT:g} s"
        raise errors.InvalidRequest({"request": what}) from None
    if request is grpc.aio.EOF:
        raise errors.InvalidRequest({"request": "is missing"})
    return request


async def written(answers: AsyncGenerator[Any, None], context: Context) -> None:
    """Write what a handler yields."""
    async with aclosing(answers):
        async for response in answers:
            await context.write(response)


async def refuse(method: str, context: Context, error: BaseException) -> NoReturn:
    """End the call with the error's status.

    A cancellation that the caller did not ask for must not leak: grpc would never end
    the call, and its reader would hang.
    """
    if isinstance(error, grpc.aio.BaseError):
        raise error  # grpc's own: the call has a status, or nobody is there to be told one
    if isinstance(error, asyncio.CancelledError):
        if context.cancelled():
            raise error
        error = errors.Draining("The service ended the call. Try again.", retry_after=0.0)
    if isinstance(error, NotImplementedError):  # a generated base class: nobody wrote the method
        await context.abort(grpc.StatusCode.UNIMPLEMENTED, f"{method} is not implemented.")
    await context.abort_with_status(rpc_status.to_status(status_of(method, error)))
    raise AssertionError("abort_with_status raises")
