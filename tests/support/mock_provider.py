"""A model provider over real HTTP that answers what a test wants, and misbehaves on demand.

    async with MockProvider() as provider:
        provider.reply(say("Hello", " world"))
        provider.reply(call("add", {"a": 1}), finish(usage=None))
        ...
        assert provider.requests[0].body["model"] == "mock"

Each `reply` answers one request. Without an ending of its own it finishes properly: finish
reason, usage, `[DONE]`. A whole provider runs inside the loop of the test, on a real socket;
other processes reach it by its `url`. The parts of an answer are in `tests.support.mock_answers`.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import struct
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Self

from tests.support.mock_answers import (
    Action,
    EndOfBody,
    HangUp,
    Part,
    Reset,
    Status,
    finish,
    status,
    tokens,
)


@dataclass(frozen=True)
class Received:
    """A request as it came: its headers in lower case, its decoded body.

    `disconnected` is set when the client closed the connection before the answer's end.
    """

    path: str
    headers: Mapping[str, str]
    body: Any
    disconnected: asyncio.Event = field(default_factory=asyncio.Event)


class MockProvider:
    """The server; an async context manager."""

    def __init__(self) -> None:
        self.requests: list[Received] = []
        self.connections = 0
        self._news = asyncio.Event()
        self._replies: deque[list[Action]] = deque()
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None
        self.url = ""

    def reply(self, *parts: Part, newline: bytes = b"\n", size: int | None = None) -> None:
        """Answer the next request that has no reply yet.

        Args:
            parts: what happens, in order.
            newline: how lines end.
            size: bytes of each write; None: an event a write.

        """
        if not any(part.ends for part in parts):
            reason = "tool_calls" if any(part.calls for part in parts) else "stop"
            parts = (*parts, finish(reason, usage=tokens(7, 3)))
        actions = [action for part in parts for action in part.actions]
        self._replies.append(list(_cut(actions, newline, size)))

    async def received(self, number: int = 1) -> Received:
        """Wait for the request of that number, from 1."""
        while len(self.requests) < number:
            self._news.clear()
            await self._news.wait()
        return self.requests[number - 1]

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        port = self._server.sockets[0].getsockname()[1]
        self.url = f"http://127.0.0.1:{port}/v1"
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._server.wait_closed()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self.connections += 1
        try:
            while (request := await _receive(reader)) is not None:
                self.requests.append(request)
                self._news.set()
                if not await self._answer(request, reader, writer):
                    break
        except (ConnectionError, asyncio.CancelledError):
            pass  # the client left, or the test is over
        finally:
            self._tasks.discard(task)
            writer.close()

    async def _answer(
        self, request: Received, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> bool:
        """Play the reply; False if the connection is over."""
        if not self._replies:
            self.reply(status(400, {"error": {"message": "the mock has no reply left"}}))
        number = len(self.requests)
        try:
            return await _play(self._replies.popleft(), number, request, reader, writer)
        except ConnectionError:
            request.disconnected.set()
            return False


async def _play(
    actions: list[Action],
    number: int,
    request: Received,
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
) -> bool:
    if isinstance(actions[0], Status):
        await _send_status(actions[0], number, writer)
        return True
    writer.write(_head(200, {"content-type": "text/event-stream"}, number, None))
    for action in actions:
        match action:
            case bytes():
                writer.write(b"%x\r\n%b\r\n" % (len(action), action))
                await writer.drain()
            case asyncio.Event():
                if not await _released(action, reader):
                    request.disconnected.set()
                    return False
            case EndOfBody():
                writer.write(b"0\r\n\r\n")
                await writer.drain()
            case Reset():
                linger = struct.pack("ii", 1, 0)  # closing sends a reset and waits for nothing
                writer.get_extra_info("socket").setsockopt(
                    socket.SOL_SOCKET, socket.SO_LINGER, linger
                )
                writer.transport.abort()
                return False
            case HangUp():
                return False
            case Status():
                raise AssertionError("a status must be the whole reply")
    return True


async def _send_status(told: Status, number: int, writer: asyncio.StreamWriter) -> None:
    writer.write(_head(told.status, told.headers, number, len(told.body)) + told.body)
    await writer.drain()


def _head(status: int, headers: Mapping[str, str], number: int, body: int | None) -> bytes:
    """Return status line and headers; `body` is its length, None if it comes in chunks."""
    lines = [f"HTTP/1.1 {status} mock", f"x-request-id: req_{number}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    lines += ["transfer-encoding: chunked" if body is None else f"content-length: {body}"]
    return "\r\n".join([*lines, "", ""]).encode()


async def _receive(reader: asyncio.StreamReader) -> Received | None:
    """Return the next request; None if the client closed the connection."""
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError:
        return None
    first, *lines = head.decode("latin-1").rstrip().split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (x.partition(":") for x in lines)}
    body = await reader.readexactly(int(headers.get("content-length", 0)))
    return Received(first.split()[1], headers, json.loads(body) if body else None)


async def _released(event: asyncio.Event, reader: asyncio.StreamReader) -> bool:
    """Wait for the event; False if the client left before."""
    released = asyncio.create_task(event.wait())
    left = asyncio.create_task(reader.read(1))
    try:
        await asyncio.wait({released, left}, return_when=asyncio.FIRST_COMPLETED)
        return not left.done()
    finally:
        for task in (released, left):
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError, ConnectionError):
                await task


def _cut(actions: list[Action], newline: bytes, size: int | None) -> Iterator[Action]:
    """Put other line ends into what is sent, and cut it into writes of `size` bytes."""
    for action in actions:
        if not isinstance(action, bytes):
            yield action
            continue
        data = action.replace(b"\n", newline)
        for start in range(0, len(data), size or len(data)):
            yield data[start : start + (size or len(data))]
