"""The body of an answer, taken where it arrives."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp
import pytest
import trustme

from polos_service.models.body import PIECE_BYTES, pour
from polos_service.models.silence import Silence
from tests.support.models import REQUEST
from tests.unit.models.test_connection import HEAD, Serve, serving

CHUNKED = HEAD + b"transfer-encoding: chunked\r\n\r\n"

LAST = b"0\r\n\r\n"


def framed(piece: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(piece), piece)


class Provider:
    """Answers each request of a connection with the pieces that are put; None ends an answer."""

    def __init__(self) -> None:
        self.pieces: asyncio.Queue[bytes | None] = asyncio.Queue()
        self.left = asyncio.Event()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while await reader.readuntil(b"\r\n\r\n"):
                writer.write(CHUNKED)
                while (piece := await self.pieces.get()) is not None:
                    writer.write(framed(piece))
                writer.write(LAST)
        finally:
            self.left.set()


@asynccontextmanager
async def answered(
    serve: Serve, tls: trustme.CA | None = None
) -> AsyncIterator[tuple[aiohttp.ClientSession, str]]:
    """Serve; yield a session and the URL."""
    server = client = None
    if tls is not None:
        server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        tls.issue_cert("127.0.0.1").configure_cert(server)
        client = ssl.create_default_context()
        tls.configure_trust(client)
    connector = aiohttp.TCPConnector(ssl=client or True)
    async with (
        serving(serve, server) as place,
        aiohttp.ClientSession(connector=connector) as session,
    ):
        yield session, f"{'http' if tls is None else 'https'}://{place}"


class Taker:
    """Takes pieces; waits for `room` after each as long as it is not set."""

    def __init__(self) -> None:
        self.pieces: list[bytes] = []
        self.tasks: list[asyncio.Task[object] | None] = []
        self.room = asyncio.Event()
        self.room.set()
        self.arrived = asyncio.Event()

    async def take(self, piece: bytes) -> None:
        self.pieces.append(piece)
        self.tasks.append(asyncio.current_task())
        self.arrived.set()
        await self.room.wait()

    async def one(self) -> None:
        """Wait for a piece."""
        await asyncio.wait_for(self.arrived.wait(), 20)
        self.arrived.clear()


async def poured(session: aiohttp.ClientSession, url: str, taker: Taker) -> None:
    async with session.get(url) as response, Silence(REQUEST, "The model") as silence:
        await pour(response, silence, taker.take)


@pytest.mark.parametrize("tls", [None, trustme.CA()], ids=["plain", "tls"])
async def test_pieces_are_taken_where_they_arrive_and_not_in_the_task(
    tls: trustme.CA | None,
) -> None:
    provider, taker = Provider(), Taker()
    async with answered(provider.serve, tls) as place:
        pouring = asyncio.create_task(poured(*place, taker))
        for piece in (b"a", b"b", b"c"):
            provider.pieces.put_nowait(piece)
            await taker.one()
        provider.pieces.put_nowait(None)
        await asyncio.wait_for(pouring, 20)
    assert taker.pieces == [b"a", b"b", b"c"]
    assert taker.tasks[1:] == [None, None]


async def test_a_large_piece_is_cut_and_nothing_is_lost() -> None:
    provider, taker = Provider(), Taker()
    said = bytes(range(256)) * 4096
    async with answered(provider.serve) as place:
        for part in (said, None):
            provider.pieces.put_nowait(part)
        await asyncio.wait_for(poured(*place, taker), 20)
    assert b"".join(taker.pieces) == said
    assert max(map(len, taker.pieces)) <= PIECE_BYTES


async def test_who_must_wait_goes_on_in_the_task_and_in_order() -> None:
    provider, taker = Provider(), Taker()
    async with answered(provider.serve) as place:
        pouring = asyncio.create_task(poured(*place, taker))
        provider.pieces.put_nowait(b"a")
        await taker.one()
        taker.room.clear()
        for piece in (b"b", b"c", b"d", None):
            provider.pieces.put_nowait(piece)
        await taker.one()
        assert not pouring.done()
        taker.room.set()
        await asyncio.wait_for(pouring, 20)
    assert b"".join(taker.pieces) == b"abcd"


async def test_cancelling_while_a_piece_waits_stops_both() -> None:
    provider, taker = Provider(), Taker()
    stopped: list[bytes] = []

    async def take(piece: bytes) -> None:
        try:
            await taker.take(piece)
        finally:
            stopped.append(piece)

    async def pouring(session: aiohttp.ClientSession, url: str) -> None:
        async with session.get(url) as response, Silence(REQUEST, "The model") as silence:
            await pour(response, silence, take)

    async with answered(provider.serve) as place:
        task = asyncio.create_task(pouring(*place))
        provider.pieces.put_nowait(b"a")
        await taker.one()
        taker.room.clear()
        provider.pieces.put_nowait(b"b")
        await taker.one()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asyncio.wait_for(task, 20)
        provider.pieces.put_nowait(None)
        await asyncio.wait_for(provider.left.wait(), 20)
    assert stopped == taker.pieces == [b"a", b"b"]


async def test_what_the_taking_raises_is_raised_in_the_task() -> None:
    provider, taker = Provider(), Taker()

    async def take(piece: bytes) -> None:
        await taker.take(piece)
        if piece == b"b":
            raise ValueError("a defect")

    async def pouring(session: aiohttp.ClientSession, url: str) -> None:
        async with session.get(url) as response, Silence(REQUEST, "The model") as silence:
            await pour(response, silence, take)

    async with answered(provider.serve) as place:
        task = asyncio.create_task(pouring(*place))
        for piece in (b"a", b"b"):
            provider.pieces.put_nowait(piece)
            await taker.one()
        with pytest.raises(ValueError, match="a defect"):
            await asyncio.wait_for(task, 20)
        provider.pieces.put_nowait(None)


async def test_a_connection_serves_the_next_request_before_the_task_has_noticed() -> None:
    """The end of a body gives its connection back in the turn in which it arrives."""
    provider = Provider()
    connections = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        await provider.serve(reader, writer)

    async def asked(session: aiohttp.ClientSession, url: str, taker: Taker, *parts: bytes) -> None:
        for part in (*parts, None):
            provider.pieces.put_nowait(part)
        await poured(session, url, taker)

    takers = [Taker() for _ in range(50)]
    async with answered(serve) as place:
        for number, taker in enumerate(takers):
            await asyncio.wait_for(asked(*place, taker, b"%d" % number, b"!"), 20)
    assert [b"".join(taker.pieces) for taker in takers] == [b"%d!" % n for n in range(50)]
    assert connections == 1
