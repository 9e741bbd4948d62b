"""Peer (c): the careful relay. Raw lines of the `openai` package, one message a token, no log."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import orjson

from bench.peers.common import event, run
from bench.peers.model import asked, provider
from polos.v1.event_pb2 import Event
from polos.v1.run_service_pb2 import StreamRunRequest

client = provider()


async def stream(request: StreamRunRequest, _context: Any) -> AsyncIterator[Event]:
    """Relay an answer."""
    sequence = 0
    create = client.chat.completions.with_streaming_response.create
    async with create(**asked(request.input)) as response:
        async for line in response.iter_lines():
            if text := text_of(line):
                sequence += 1
                yield event(sequence, text)


def text_of(line: str) -> str:
    """Return the text in a line; empty if there is none."""
    if not line.startswith("data: {"):
        return ""
    choices = orjson.loads(line[6:])["choices"]
    return (choices[0]["delta"].get("content") or "") if choices else ""


if __name__ == "__main__":
    run(stream)
