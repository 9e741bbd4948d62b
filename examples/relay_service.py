"""A gRPC service of one's own that passes runs on to its callers: POLOS_ADDRESS's, as they are.

Clients of Polos stream through it as they do without it, resuming included.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any

import grpc.aio

from polos.v1 import run_service_pb2 as pb
from polos.v1 import run_service_pb2_grpc as services

UPSTREAM = os.environ.get("POLOS_ADDRESS", "127.0.0.1:50051")
Call = grpc.aio.UnaryStreamCall[Any, Any]
Context = grpc.aio.ServicerContext[Any, Any]


class Relay(services.RunServiceServicer):
    """Passes streams on."""

    def __init__(self, upstream: grpc.aio.Channel) -> None:
        self._upstream = services.RunServiceStub(upstream)

    async def StreamRun(  # noqa: N802 - named by the proto
        self, request: pb.StreamRunRequest, context: Context
    ) -> AsyncIterator[pb.StreamRunResponse]:
        """Start a run and pass its stream on."""
        call = self._upstream.StreamRun(request, timeout=context.time_remaining())
        async for response in passed_on(call, context):
            yield response

    async def StreamWorkflow(  # noqa: N802
        self, request: pb.StreamWorkflowRequest, context: Context
    ) -> AsyncIterator[pb.StreamWorkflowResponse]:
        """Pass the stream of a run on, from the caller's cursor."""
        call = self._upstream.StreamWorkflow(request, timeout=context.time_remaining())
        async for response in passed_on(call, context):
            yield response


async def passed_on(call: Call, context: Context) -> AsyncIterator[Any]:
    """Yield what the call brings, unchanged; and its metadata, its status and its end."""
    try:
        # The run's id comes first; a caller that loses the stream resumes by it.
        await context.send_initial_metadata(await call.initial_metadata())
        async for response in call:
            yield response
    except grpc.aio.AioRpcError as error:
        # The trailing metadata has the reason, from which a client makes its exception.
        await context.abort(error.code(), error.details() or "", tuple(error.trailing_metadata()))
    finally:
        call.cancel()  # the caller has left, or everything was passed on already


async def main(listen: str) -> None:
    """Serve until Ctrl-C."""
    server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
    async with grpc.aio.insecure_channel(UPSTREAM) as upstream:
        relay = Relay(upstream)  # type: ignore[abstract] # callers are told of the rest
        services.add_RunServiceServicer_to_server(relay, server)
        port = server.add_insecure_port(listen)
        await server.start()
        print(f"The relay listens on {listen.rpartition(':')[0]}:{port}", flush=True)
        try:
            await server.wait_for_termination()
        finally:
            await server.stop(grace=None)


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        asyncio.run(main(sys.argv[1] if len(sys.argv) > 1 else "127.0.0.1:50052"))
