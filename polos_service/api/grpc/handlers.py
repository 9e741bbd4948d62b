"""Registers a servicer from its service's descriptor, so that no method can be forgotten.

The generated registration would serialise every response. Our streams answer with frames:
bytes of their response message already, so their serialiser is the identity.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import grpc
import grpc.aio
from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor
from google.protobuf.message_factory import GetMessageClass

from polos_service.caller import Caller

Method = TypeVar("Method", bound=Callable[..., Any])


@dataclass(frozen=True, kw_only=True, slots=True)
class Needs:
    """What a method needs of its caller.

    Attributes:
        scopes: the caller must have all of them.
        run_field: the field of the request that names the run, for methods that may be called
            with a run token, which is good for one run; empty for others.

    """

    scopes: tuple[str, ...]
    run_field: str = ""


def needs(*scopes: str, run_field: str = "") -> Callable[[Method], Method]:
    """Declare what a method of a servicer needs; one without a declaration is always refused."""

    def declare(method: Method) -> Method:
        method.needs = Needs(scopes=scopes, run_field=run_field)  # type: ignore[attr-defined]
        return method

    return declare


@dataclass(frozen=True, slots=True)
class CallerMethod:
    """A method that is told who calls: the guard passes the caller before request and context.

    Attributes:
        function: the method.
        needs: what it needs of its caller; None if that was not declared.

    """

    function: Callable[[Caller, Any, grpc.aio.ServicerContext[Any, Any]], Any]
    needs: Needs | None


def generic_handler(service: ServiceDescriptor, servicer: object) -> grpc.GenericRpcHandler:
    """Return the handler of all methods of the service; a method that is missing raises."""
    handlers = {method.name: method_handler(method, servicer) for method in service.methods}
    return grpc.method_handlers_generic_handler(service.full_name, handlers)


def method_handler(method: MethodDescriptor, servicer: object) -> grpc.RpcMethodHandler[Any, Any]:
    """Return the handler of one method."""
    request = GetMessageClass(method.input_type)
    response = GetMessageClass(method.output_type)
    called = getattr(servicer, method.name)
    function: Any = CallerMethod(called, getattr(called, "needs", None))
    if method.server_streaming:
        return grpc.unary_stream_rpc_method_handler(function, request.FromString)
    return grpc.unary_unary_rpc_method_handler(
        function, request.FromString, response.SerializeToString
    )
