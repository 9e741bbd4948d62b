"""A link to the service, or from it to its store, that can be cut: a small TCP proxy."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from typing import Self

from chaos.places import Place
from chaos.plan import Cut
from chaos.tasks import Tasks

NOW = struct.pack("ii", 1, 0)
"""The linger option with which closing a socket resets its connection."""

CHUNK = 64 * 1024


class Connection:
    """A connection through the link."""

    def __init__(self, near: asyncio.StreamWriter, far: asyncio.StreamWriter) -> None:
        self._ends = (near, far)
        self.gate = asyncio.Event()
        self.gate.set()
        self.left: int | None = None

    def close(self, *, reset: bool = False) -> None:
        """Close both ends."""
        self.gate.set()
        for end in self._ends:
            if reset:
                with contextlib.suppress(OSError):  # it is closed already
                    raw = end.get_extra_info("socket")
                    raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, NOW)
                end.transport.abort()
            else:
                end.close()

    async def pump(
        self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, *, answers: bool
    ) -> None:
        """Pass on what comes, as long as the link lets it."""
        with contextlib.suppress(ConnectionError):
            while data := await source.read(CHUNK):
                await self.gate.wait()
                ends = answers and self.left is not None and len(data) >= self.left
                sink.write(data[: self.left] if ends else data)
                await sink.drain()
                if ends:
                    break
                if answers and self.left is not None:
                    self.left -= len(data)
        self.close()


class Link:
    """A port that leads to the service, or elsewhere; an async context manager.

    Attributes:
        address: where it listens.

    """

    def __init__(self, *ports: int) -> None:
        """Lead to the first of these ports of this machine where somebody listens."""
        self.address = ""
        self._ports = ports
        self._parted = False
        self._server: asyncio.Server | None = None
        self._connections: set[Connection] = set()
        self._tasks = Tasks()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.address = f"127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._server is not None:
            self._server.close()
        await self._tasks.end()

    async def suffer(self, cut: Cut) -> None:
        """Do what the plan says to every connection."""
        struck = list(self._connections)
        for one in struck:
            if cut.place is Place.LINK_INSIDE:
                one.left = int(cut.size)
            elif cut.place is Place.LINK_STALL:
                one.gate.clear()
            else:
                one.close(reset=cut.place is Place.LINK_RESET)
        if cut.place is Place.LINK_STALL:
            await asyncio.sleep(cut.size)
            for one in struck:
                one.close(reset=True)

    def part(self) -> None:
        """Let nothing through any more, and close nothing."""
        self._parted = True
        for one in self._connections:
            one.gate.clear()

    def heal(self, *, reset: bool) -> None:
        """Let through again, what was held back too; or reset the connections instead."""
        self._parted = False
        for one in list(self._connections):
            if reset:
                one.close(reset=True)
            else:
                one.gate.set()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.CancelledError):  # the round is over
            async with self._tasks:
                await self._carry(reader, writer)

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far = await self._connect()
        if far is None:
            writer.close()
            return
        answers, service = far
        connection = Connection(writer, service)
        if self._parted:
            connection.gate.clear()
        self._connections.add(connection)
        try:
            await asyncio.gather(
                connection.pump(reader, service, answers=False),
                connection.pump(answers, writer, answers=True),
            )
        finally:
            self._connections.discard(connection)
            connection.close()

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter] | None:
        for port in self._ports:
            with contextlib.suppress(OSError):  # nobody listens there now
                return await asyncio.open_connection("127.0.0.1", port)
        return None
