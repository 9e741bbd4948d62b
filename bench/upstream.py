"""A mock provider that is never the bottleneck: precomputed bytes, no HTTP library.

It speaks as much HTTP as the `openai` package needs. Asked for a rate, it puts the time at
which it sends a token (nanoseconds since the epoch) into the token's text.
"""

from __future__ import annotations

import asyncio
import random
import time
from functools import cache
from typing import cast

import uvloop

from bench.answers import CHAT, TEXT, Form, form_of
from bench.prompt import Prompt

PIECE = 256
"""Tokens a write when nothing is paced."""

HEAD = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n"
    b"x-request-id: req_bench\r\ntransfer-encoding: chunked\r\n\r\n"
)
EMPTY = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"


def chunk(data: bytes) -> bytes:
    """Return data as a chunk of an HTTP body."""
    return b"%x\r\n%b\r\n" % (len(data), data)


class Pieces:
    """The bytes of a form, in chunks of an HTTP body."""

    def __init__(self, form: Form) -> None:
        self._form = form
        self.token = chunk(form.before + TEXT + form.after)
        self.many = self.token * PIECE
        self.opening = chunk(form.opening) if form.opening else b""

    def ending(self, tokens: int) -> bytes:
        """Return the end of an answer of so many tokens."""
        return chunk(self._form.ending(tokens)) + b"0\r\n\r\n"

    def stamped(self) -> bytes:
        """Return a token whose text is the time at which it is sent."""
        return chunk(b"%b%d %b" % (self._form.before, time.time_ns(), self._form.after))


@cache
def pieces_of(form: Form) -> Pieces:
    """Return the bytes of a form, made once."""
    return Pieces(form)


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
        self._pieces = pieces_of(CHAT)

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
            self._pieces = pieces_of(form_of(head.split()[1].decode()))
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
        self._transport.write(HEAD + self._pieces.opening)
        if prompt.hold:
            self.held.setdefault(prompt.hold, []).append(self)
        else:
            self.start()

    def _pour(self) -> None:
        while self._room and self._left:
            now = min(self._left, PIECE)
            self._left -= now
            self._transport.write(self._pieces.many if now == PIECE else self._pieces.token * now)
        if not self._left:
            self._transport.write(self._pieces.ending(self._tokens))

    def _tick(self) -> None:
        if not self._left:
            return
        self._left -= 1
        self._transport.write(self._pieces.stamped())
        if not self._left:
            self._transport.write(self._pieces.ending(self._tokens))
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
