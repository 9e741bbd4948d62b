"""Peer (a): bare grpc.aio, one event a message, no provider and no log: the floor."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

from bench.peers.common import event, forever, run
from bench.prompt import Prompt
from polos.v1.event_pb2 import Event
from polos.v1.run_service_pb2 import StreamRunRequest


async def stream(request: StreamRunRequest, _context: Any) -> AsyncIterator[Event]:
    """Send so many events; held, send one and stay silent."""
    prompt = Prompt.found_in(request.input.encode())
    if prompt.hold:
        yield event(1, "tok ")
        await forever()
    for sequence in range(1, prompt.tokens + 1):
        yield event(sequence, "tok ")


if __name__ == "__main__":
    run(stream)
