"""A mock provider that is never the bottleneck: precomputed bytes, no HTTP library.

It speaks as much HTTP as the `openai` package needs. Asked for a rate, it puts the time at
which it sends a token (nanoseconds since the epoch) into the token's text.
"""

from __future__ import annotations

import asyncio
import random
import time
from typing import cast

import uvloop

from bench.prompt import Prompt

TEXT = b"tok "
PIECE = 256
"""Tokens a write when nothing is paced."""

HEAD = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n"
    b"x-request-id: req_bench\r\ntransfer-encoding: chunked\r\n\r\n"
)
EMPTY = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"
BEFORE = (
    b'data: {"id":"chatcmpl-bench","object":"chat.completion.chunk","created":1760000000,'
    b'"model":"mock","service_tier":"default","system_fingerprint":"fp_bench","choices":['
    b'{"index":0,"delta":{"content":"'
)
AFTER = b'"},"logprobs":null,"finish_reason":null}],"usage":null}\n\n'


def chunk(data: bytes) -> bytes:
    """Return data as a chunk of an HTTP body."""
    return b"%x\r\n%b\r\n" % (len(data), data)


def ending(tokens: int) -> bytes:
    """Return finish reason, usage and the end of the body."""
    head = b'data: {"id":"chatcmpl-bench","object":"chat.completion.chunk","created":1760000000,'
    head += b'"model":"mock","choices":['
    finish = head + b'{"index":0,"delta":{},"finish_reason":"stop"}]}\n\n'
    usage = b'],"usage":{"prompt_tokens":7,"completion_tokens":%d,"total_tokens":%d}}\n\n'
    used = head + usage % (tokens, tokens + 7)
    return b"".join([chunk(finish), chunk(used), chunk(b"data: [DONE]\n\n"), b"0\r\n\r\n"])


TOKEN = chunk(BEFORE + TEXT + AFTER)
PIECE_BYTES = TOKEN * PIECE
STAMP_DIGITS = len(str(time.time_ns())) + 1
STAMP_SIZE = b"%x\r\n" % (len(BEFORE) + STAMP_DIGITS + len(AFTER))


class Provider(asyncio.Protocol):
    """One connection."""

    held: dict[str, list[Provider]] = {}  # noqa: RUF012 - of all connections

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._received = b""
        self._left = 0
        self._tokens = 0
        self._step = 0.0
        self._due = 0.0
        self._room = True

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the connection."""
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is none of its subclasses

    def data_received(self, data: bytes) -> None:
        """Answer a request once it is whole."""
        self._received += data
        head, separator, body = self._received.partition(b"\r\n\r\n")
        _, _, length = head.lower().partition(b"content-length:")
        if not separator or len(body) < int(length.split(b"\r\n")[0] or 0):
            return
        self._received = b""
        if head.startswith(b"POST /release/"):
            self._release(head.split()[1].rpartition(b"/")[2].decode())
        else:
            self._begin(Prompt.found_in(body))

    def pause_writing(self) -> None:
        """Stop: the other side is slow."""
        self._room = False

    def resume_writing(self) -> None:
        """Go on where it stopped."""
        self._room = True
        if self._left and not self._step:
            self._pour()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - the base's name
        """Forget the rest."""
        self._left = 0

    def start(self) -> None:
        """Begin an answer that was asked for."""
        if not self._step:
            self._pour()
            return
        # Answers that began in the same moment do not tick in the same moment.
        self._due = self._loop.time() + random.random() * self._step  # noqa: S311
        self._loop.call_at(self._due, self._tick)

    def _release(self, name: str) -> None:
        for provider in self.held.pop(name, []):
            provider.start()
        self._transport.write(EMPTY)

    def _begin(self, prompt: Prompt) -> None:
        self._tokens = self._left = prompt.tokens
        self._step = 1 / prompt.rate if prompt.rate else 0.0
        self._transport.write(HEAD)
        if prompt.hold:
            self.held.setdefault(prompt.hold, []).append(self)
        else:
            self.start()

    def _pour(self) -> None:
        while self._room and self._left:
            now = min(self._left, PIECE)
            self._left -= now
            self._transport.write(PIECE_BYTES if now == PIECE else TOKEN * now)
        if not self._left:
            self._transport.write(ending(self._tokens))

    def _tick(self) -> None:
        if not self._left:
            return
        self._left -= 1
        stamp = b"%d " % time.time_ns()
        self._transport.write(b"".join((STAMP_SIZE, BEFORE, stamp, AFTER, b"\r\n")))
        if not self._left:
            self._transport.write(ending(self._tokens))
            return
        self._due += self._step
        self._loop.call_at(self._due, self._tick)


async def serve() -> None:
    """Serve until the process is ended."""
    server = await asyncio.get_running_loop().create_server(Provider, "127.0.0.1", 0, backlog=2048)
    print(f"listens on 127.0.0.1:{server.sockets[0].getsockname()[1]}", flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(serve())
