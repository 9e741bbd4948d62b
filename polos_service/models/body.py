"""The body of an answer: each piece is taken in the turn of the loop in which it arrives.

A task that waits for a piece costs more than the piece: the future, the switch to the task, and the
way down through every coroutine that awaits. So a piece is taken where it arrives, in the
transport's callback, as far as nothing has to be waited for; the task goes on with the rest.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Generator
from functools import partial
from typing import Any

import aiohttp
from aiohttp.client_proto import ResponseHandler

from polos_service.models.lost import lost_by
from polos_service.models.silence import Silence

PIECE_BYTES = 16 * 1024
"""Bytes of an answer at most that are handed on at once."""

Take = Callable[[bytes], Coroutine[Any, Any, None]]
"""What takes a piece. It begins outside any task, and only waits for futures and other tasks."""


async def pour(response: aiohttp.ClientResponse, silence: Silence, take: Take) -> None:
    """Hand the body to `take` in pieces, as it comes over the wire: still compressed if it is.

    While a piece is taken no other one is, and aiohttp stops reading the socket before long. The
    model counts as silent only while a piece is waited for, not while one is taken.

    Raises:
        LostError: the connection failed.

    """
    protocol = None if response.connection is None else response.connection.protocol
    transport = None if protocol is None else protocol.transport
    body = _Body(response.content, protocol, silence, take)
    if protocol is None or transport is None:  # the body has ended, or its connection has
        body.end()
        await body.pour()
        return
    transport.set_protocol(body)
    try:
        await body.pour()
    finally:
        body.close()
        # Once the body has ended, its connection may serve the next request already.
        if transport.get_protocol() is body:
            transport.set_protocol(protocol)


class _Body(asyncio.Protocol):
    """What has arrived of a body, and how far it was taken.

    It stands between a transport and aiohttp's protocol.
    """

    def __init__(
        self,
        content: aiohttp.StreamReader,
        protocol: ResponseHandler | None,
        silence: Silence,
        take: Take,
    ) -> None:
        """Begin; `protocol` is that of the connection, None if the body has ended."""
        self._content = content
        self._protocol: Any = protocol
        self._silence = silence
        self._take = take
        self._loop = asyncio.get_running_loop()
        self._taken = 0
        self._ended = False
        content.on_eof(self.end)
        self._awaits: asyncio.Future[None] | None = None
        """Pending while the task waits, and pieces are taken where they arrive."""
        self._begun: _Begun | None = None
        """The taking of a piece that could not be finished there."""
        self._failure: Exception | None = None

    async def pour(self) -> None:
        """Take everything to the end.

        Raises:
            LostError: the connection failed.

        """
        while True:
            while self._taken < self._content.total_bytes:
                await self._take(self._next())
                self._silence.listen()
            if self._ended:
                self._check()
                return
            self._awaits = self._loop.create_future()
            await self._awaits
            if self._failure is not None:
                raise self._failure
            if self._begun is not None:
                await self._begun
                self._begun = None
                self._silence.listen()

    def data_received(self, data: bytes) -> None:
        """Take what has arrived, unless the task is at it."""
        self._protocol.data_received(data)
        if self._awaits is None or self._awaits.done():
            return
        try:
            while self._taken < self._content.total_bytes and self._begun is None:
                taking = self._take(self._next())
                try:
                    self._begun = _Begun(taking, taking.send(None))
                except StopIteration:
                    self._silence.listen()
        except Exception as error:  # noqa: BLE001 - it is raised in the task
            self._failure = error
        if self._ended or self._begun is not None or self._failure is not None:
            self._awaits.set_result(None)

    def eof_received(self) -> None:
        self._protocol.eof_received()

    def connection_lost(self, exc: Exception | None) -> None:
        self._protocol.connection_lost(exc)
        self.end()
        if self._awaits is not None and not self._awaits.done():
            self._awaits.set_result(None)

    def pause_writing(self) -> None:
        self._protocol.pause_writing()

    def resume_writing(self) -> None:
        self._protocol.resume_writing()

    def end(self) -> None:
        """Note that nothing more will arrive."""
        self._ended = True

    def close(self) -> None:
        """Take no more: the task has left."""
        self._awaits = None
        if self._begun is not None:
            self._begun.close()

    def _next(self) -> bytes:
        """Return a piece of what is here.

        Raises:
            LostError: the connection failed.

        """
        try:
            piece = self._content.read_nowait(PIECE_BYTES)
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise lost_by(error) from error
        self._taken += len(piece)
        self._silence.heard()
        return piece

    def _check(self) -> None:
        """Raise LostError if the body did not come to its end.

        If the framing of a body breaks, aiohttp closes the connection, and tells no reader.
        """
        lost = self._content.exception()
        if lost is None and not self._content.is_eof():
            lost = self._protocol.exception() or ConnectionError()
        if lost is not None:
            raise lost_by(lost)


class _Begun:
    """A coroutine that has run to its first wait; who awaits it goes on with it."""

    def __init__(self, coroutine: Coroutine[Any, Any, None], waits_for: Any) -> None:
        self._coroutine = coroutine
        self._waits_for = waits_for

    def __await__(self) -> Generator[Any, Any, None]:
        waits_for = self._waits_for
        while True:
            try:
                sent = yield waits_for
            except BaseException as error:  # noqa: BLE001 - a cancellation, for example
                go_on = partial(self._coroutine.throw, error)
            else:
                go_on = partial(self._coroutine.send, sent)
            try:
                waits_for = go_on()
            except StopIteration:
                return

    def close(self) -> None:
        """Stop the coroutine where it is, if it has not ended."""
        self._coroutine.close()
