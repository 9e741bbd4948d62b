"""A model provider over real HTTP that answers what a test wants, and misbehaves on demand.

    async with MockProvider() as provider:
        provider.reply(say("Hello", " world"))
        provider.reply(call("add", {"a": 1}), finish(usage=None))
        ...
        assert provider.requests[0].body["model"] == "mock"

Each `reply` answers one request. Without an ending of its own it finishes properly: finish
reason, usage, `[DONE]`. A whole provider runs inside the loop of the test, on a real socket;
other processes reach it by its `url`.
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
from types import TracebackType
from typing import Any, Self


class _Reset:
    """Ends the connection with a TCP reset."""


class _HangUp:
    """Ends the connection without the end of the HTTP body."""


class _EndOfBody:
    """Ends the HTTP body; the connection stays."""


@dataclass(frozen=True)
class _Status:
    status: int
    body: bytes
    headers: Mapping[str, str]


_Action = bytes | asyncio.Event | _Status | _Reset | _HangUp | _EndOfBody


@dataclass(frozen=True)
class Part:
    """A piece of an answer: what happens, whether it ends the answer, whether it calls a tool."""

    actions: tuple[_Action, ...]
    ends: bool = False
    calls: bool = False


@dataclass(frozen=True)
class Received:
    """A request as it came: its headers in lower case, its decoded body.

    `disconnected` is set when the client closed the connection before the answer's end.
    """

    path: str
    headers: Mapping[str, str]
    body: Any
    disconnected: asyncio.Event = field(default_factory=asyncio.Event)


def chunk(delta: Mapping[str, Any], finish_reason: str | None = None, **more: Any) -> bytes:
    """Return one event with a chunk of a chat completion."""
    choice = {"index": 0, "delta": delta, "finish_reason": finish_reason}
    return event({"id": "chatcmpl-1", "model": "mock", "choices": [choice], **more})


def event(data: Any) -> bytes:
    """Return one event with JSON data; what is not ASCII stays as it is."""
    return b"data: " + json.dumps(data, ensure_ascii=False).encode() + b"\n\n"


def say(*texts: str) -> Part:
    """The model says each text in a chunk of its own."""
    return Part(tuple(chunk({"content": text}) for text in texts))


def delta(**fields: Any) -> Part:
    """A chunk with any delta."""
    return Part((chunk(fields),))


def call(
    name: str, arguments: Any, *, call_id: str = "call_a", index: int = 0, pieces: int = 3
) -> Part:
    """The model calls a tool, its arguments in several pieces."""
    text = arguments if isinstance(arguments, str) else json.dumps(arguments)
    size = max(1, -(-len(text) // pieces))
    head = {"index": index, "id": call_id, "type": "function", "function": {"name": name}}
    tails = [
        {"index": index, "function": {"arguments": text[start : start + size]}}
        for start in range(0, len(text), size)
    ]
    return Part(tuple(chunk({"tool_calls": [one]}) for one in [head, *tails]), calls=True)


def finish(reason: str = "stop", *, usage: Mapping[str, Any] | None = None) -> Part:
    """The answer ends properly; without `usage` it tells no tokens."""
    told = () if usage is None else (event({"choices": [], "usage": usage}),)
    actions = (chunk({}, reason), *told, b"data: [DONE]\n\n", _EndOfBody())
    return Part(actions, ends=True)


def tokens(read: int, written: int, **details: int) -> dict[str, Any]:
    """Return usage as the provider tells it."""
    return {
        "prompt_tokens": read,
        "completion_tokens": written,
        "total_tokens": read + written,
        "prompt_tokens_details": details,
    }


def raw(*pieces: bytes) -> Part:
    """Send bytes as they are."""
    return Part(pieces)


def hold(until: asyncio.Event) -> Part:
    """Be silent until the event is set or the client leaves."""
    return Part((until,))


def cut() -> Part:
    """End the body in good order, but without a finish reason."""
    return Part((_EndOfBody(),), ends=True)


def hang_up() -> Part:
    """Close the connection in the middle of the body."""
    return Part((_HangUp(),), ends=True)


def reset() -> Part:
    """Reset the connection."""
    return Part((_Reset(),), ends=True)


def status(code: int, body: Any = None, /, **headers: str) -> Part:
    """Answer with an HTTP status instead of a stream; `_` in a header's name is `-`.

    The client is told not to try again by itself, unless `x_should_retry` says otherwise.
    """
    told = {"content-type": "application/json", "x-should-retry": "false"}
    told |= {name.replace("_", "-"): value for name, value in headers.items()}
    data = body if isinstance(body, bytes) else json.dumps(body or {}).encode()
    return Part((_Status(code, data, told),), ends=True)


class MockProvider:
    """The server; an async context manager."""

    def __init__(self) -> None:
        self.requests: list[Received] = []
        self.connections = 0
        self._news = asyncio.Event()
        self._replies: deque[list[_Action]] = deque()
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

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
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
    actions: list[_Action],
    number: int,
    request: Received,
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
) -> bool:
    if isinstance(actions[0], _Status):
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
            case _EndOfBody():
                writer.write(b"0\r\n\r\n")
                await writer.drain()
            case _Reset():
                linger = struct.pack("ii", 1, 0)  # closing sends a reset and waits for nothing
                writer.get_extra_info("socket").setsockopt(
                    socket.SOL_SOCKET, socket.SO_LINGER, linger
                )
                writer.transport.abort()
                return False
            case _HangUp():
                return False
            case _Status():
                raise AssertionError("a status must be the whole reply")
    return True


async def _send_status(told: _Status, number: int, writer: asyncio.StreamWriter) -> None:
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


def _cut(actions: list[_Action], newline: bytes, size: int | None) -> Iterator[_Action]:
    """Put other line ends into what is sent, and cut it into writes of `size` bytes."""
    for action in actions:
        if not isinstance(action, bytes):
            yield action
            continue
        data = action.replace(b"\n", newline)
        for start in range(0, len(data), size or len(data)):
            yield data[start : start + (size or len(data))]
