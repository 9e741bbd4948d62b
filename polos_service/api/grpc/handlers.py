"""Registers a servicer from its service's descriptor, so that no method can be forgotten.

The generated registration would serialise every response. Our streams answer with frames:
bytes of their response message already, so their serialiser is the identity.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import grpc
import grpc.aio
from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor
from google.protobuf.message_factory import GetMessageClass

from polos_service.caller import Caller


@dataclass(frozen=True, slots=True)
class CallerMethod:
    """A method that is told who calls: the guard passes the caller before request and context."""

    function: Callable[[Caller, Any, grpc.aio.ServicerContext[Any, Any]], Any]


def generic_handler(service: ServiceDescriptor, servicer: object) -> grpc.GenericRpcHandler:
    """Return the handler of all methods of the service; a method that is missing raises."""
    handlers = {method.name: method_handler(method, servicer) for method in service.methods}
    return grpc.method_handlers_generic_handler(service.full_name, handlers)


def method_handler(method: MethodDescriptor, servicer: object) -> grpc.RpcMethodHandler[Any, Any]:
    """Return the handler of one method."""
    request = GetMessageClass(method.input_type)
    response = GetMessageClass(method.output_type)
    function: Any = CallerMethod(getattr(servicer, method.name))
    if method.server_streaming:
        return grpc.unary_stream_rpc_method_handler(function, request.FromString)
    return grpc.unary_unary_rpc_method_handler(
        function, request.FromString, response.SerializeToString
    )
