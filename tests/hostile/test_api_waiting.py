"""Calls that wait to be handled: as many as have places may wait, and further ones are ended."""

from __future__ import annotations

import asyncio
import socket
import struct
import threading
from collections import Counter
from pathlib import Path

from grpc_health.v1 import health_pb2

from fuzz.raw import (
    DATA,
    END_HEADERS,
    END_STREAM,
    HEADERS,
    PING,
    frame,
    opening,
    request_headers,
)
from polos_service.api.grpc.server import WAITING
from tests.support.service import BOUND, scripted, serving

FINE = scripted("fine")

ACK = 1
"""The flag of an answer to a ping."""

CHECK = health_pb2.HealthCheckRequest().SerializeToString()


def call(stream: int) -> bytes:
    """Return the frames of a health check."""
    block = request_headers(b"/grpc.health.v1.Health/Check")
    message = b"\0" + struct.pack(">I", len(CHECK)) + CHECK
    return frame(HEADERS, END_HEADERS, stream, block) + frame(DATA, END_STREAM, stream, message)


class Flood:
    """Health checks on a connection, made by a thread while the service handles nothing.

    Attributes:
        seen: how many calls have ended, how many had a response, and how many pings an answer.

    """

    def __init__(self, port: int, calls: int) -> None:
        self.seen: Counter[str] = Counter()
        self._calls = calls
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=BOUND)
        self._file = self._socket.makefile("rb")

    def send(self, ended: int) -> None:
        """Make the calls, and wait until the server has read them and ended so many of them."""
        made = b"".join(call(2 * number + 1) for number in range(self._calls))
        self._socket.sendall(opening() + made + frame(PING, 0, 0, bytes(8)))
        while not self.seen["pings"] or self.seen["ended"] < ended:
            self._read()

    def rest(self) -> None:
        """Read until all calls have ended."""
        with self._socket, self._file:
            while self.seen["ended"] < self._calls:
                self._read()

    def _read(self) -> None:
        head = self._file.read(9)
        assert head, f"the connection ended: {self.seen}"
        self._file.read(int.from_bytes(head[:3], "big"))
        kind, flags = head[3], head[4]
        self.seen["responses"] += kind == DATA
        self.seen["ended"] += kind == HEADERS and bool(flags & END_STREAM)
        self.seen["pings"] += kind == PING and bool(flags & ACK)


async def flooded(folder: Path, calls: int, ended: int, **settings: int) -> tuple[int, Flood]:
    """Make calls while the service handles nothing; return how many ended then, and the calls."""
    async with serving(folder, FINE, **settings) as served:
        flood = Flood(served.service.port, calls)
        sending = threading.Thread(target=flood.send, args=(ended,))
        sending.start()
        sending.join()  # this thread is that of the service's loop
        early = flood.seen["ended"]
        await asyncio.to_thread(flood.rest)
    return early, flood


async def test_as_many_calls_may_wait_as_have_places(tmp_path: Path) -> None:
    early, flood = await flooded(tmp_path, 1_500, 0, max_calls=4_000)
    assert (early, flood.seen["responses"]) == (0, 1_500)


async def test_calls_beyond_are_ended_before_anything_is_spent_on_them(tmp_path: Path) -> None:
    early, _ = await flooded(tmp_path, WAITING + 100, 90, max_calls=10, max_streams=10)
    assert early <= 100
