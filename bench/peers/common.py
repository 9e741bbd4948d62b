"""What the gRPC peers have in common: one server-streaming method of one event a message."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import grpc
import uvloop

from polos.v1.event_pb2 import Event, TextDelta
from polos.v1.run_service_pb2 import StreamRunRequest

METHOD = "/bench.Relay/Stream"
RUN_ID = "0199f3a0-0000-7000-8000-000000000000"
STEP_KEY = "llm:1"

Stream = Callable[[StreamRunRequest, Any], AsyncIterator[Event] | Awaitable[None]]
"""Yields events, or writes messages to the context that it is given."""


def serialized(message: Event | bytes) -> bytes:
    """Return the bytes of an event; ready ones pass."""
    return message if isinstance(message, bytes) else message.SerializeToString()


def event(sequence: int, text: str) -> Event:
    """Return the event that the product would make of a token."""
    made = Event(
        run_id=RUN_ID,
        workflow_id="relay",
        sequence=sequence,
        text_delta=TextDelta(content=text, step_key=STEP_KEY, step=1, attempt=1),
    )
    made.create_time.GetCurrentTime()
    return made


def run(stream: Stream) -> None:
    """Serve the stream until the process is ended."""
    uvloop.run(_serve(stream))


async def _serve(stream: Stream) -> None:
    server = grpc.aio.server()
    handler = grpc.unary_stream_rpc_method_handler(stream, StreamRunRequest.FromString, serialized)
    server.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler("bench.Relay", {"Stream": handler}),)
    )
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    print(f"listens on 127.0.0.1:{port}", flush=True)
    await server.wait_for_termination()


async def forever() -> None:
    """Wait until cancelled."""
    await asyncio.Event().wait()
