"""Peer (b): the plain relay. The `openai` package's typed stream, one message a token, no log."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

from bench.peers.common import event, run
from bench.peers.model import provider, typed
from polos.v1.event_pb2 import Event
from polos.v1.run_service_pb2 import StreamRunRequest

client = provider()


async def stream(request: StreamRunRequest, _context: Any) -> AsyncIterator[Event]:
    """Relay an answer."""
    sequence = 0
    async for text in typed(client, request.input):
        sequence += 1
        yield event(sequence, text)


if __name__ == "__main__":
    run(stream)
