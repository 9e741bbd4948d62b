"""The model provider: over real HTTP, it answers each run what the run's plan says."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any, Self

from chaos.questions import arguments_of
from chaos.tasks import Tasks
from chaos.work import Turn, Work

HEAD = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n"
    b"transfer-encoding: chunked\r\n\r\n"
)


class Provider:
    """The server; an async context manager.

    Attributes:
        url: where it answers.
        asked: how often each turn of a run was asked for, by the run's name and the turn.

    """

    def __init__(self) -> None:
        self.url = ""
        self.asked: Counter[tuple[str, int]] = Counter()
        self._works: dict[str, Work] = {}
        self._server: asyncio.Server | None = None
        self._tasks = Tasks()

    def expect(self, runs: Iterable[Work]) -> None:
        """Learn what to answer them and their children."""
        self._works |= {work.name: work for run in runs for work in run.all()}

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}/v1"
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._server is not None:
            self._server.close()
        await self._tasks.end()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        gone = (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError)
        with contextlib.closing(writer), contextlib.suppress(*gone):
            async with self._tasks:
                body = await receive(reader)
                number, request, turn = self._next(body["messages"])
                await answer(writer, turn, number, request)

    def _next(self, messages: list[Mapping[str, Any]]) -> tuple[int, int, Turn]:
        """Return number of the turn that is asked for, that of the request, and what to do."""
        name = next(one["content"] for one in messages if one["role"] == "user")
        number = 1 + sum(one["role"] == "assistant" for one in messages)
        self.asked[name, number] += 1
        return number, self.asked[name, number], self._works[name].turns[number - 1]


async def receive(reader: asyncio.StreamReader) -> Any:
    """Return the body of a request."""
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
    length = next(line for line in head.split("\r\n") if line.startswith("content-length:"))
    return json.loads(await reader.readexactly(int(length.partition(":")[2])))


async def answer(writer: asyncio.StreamWriter, turn: Turn, number: int, request: int) -> None:
    """Say what the turn says; the first answer may break off."""
    writer.write(HEAD)
    breaks = turn.breaks if request == 1 else None
    words = turn.words(number, request, breaks)
    for begin in range(0, len(words), turn.burst):
        await send(writer, *({"content": word} for word in words[begin : begin + turn.burst]))
        await asyncio.sleep(turn.gap)
    if breaks is not None:
        return  # without a finish reason, without an end of the body
    for index, name in enumerate(turn.calls):
        function = {"name": name, "arguments": json.dumps(arguments_of(name, number, index))}
        call = {
            "index": index,
            "id": f"{number}.{index}".ljust(turn.id_size, "x"),
            "type": "function",
            "function": function,
        }
        await send(writer, {"tool_calls": [call]})
    await send(writer, {}, finish="tool_calls" if turn.calls else "stop")
    used = {"prompt_tokens": number, "completion_tokens": turn.tokens}
    usage = {"id": "c", "model": "mock", "choices": [], "usage": used}
    writer.write(chunked(f"data: {json.dumps(usage)}\n\n".encode()))
    writer.write(chunked(b"data: [DONE]\n\n") + b"0\r\n\r\n")
    await writer.drain()


async def send(
    writer: asyncio.StreamWriter, *deltas: Mapping[str, Any], finish: str | None = None
) -> None:
    """Send pieces of a completion at once."""
    choices = [{"index": 0, "delta": delta, "finish_reason": finish} for delta in deltas]
    pieces = [json.dumps({"id": "c", "model": "mock", "choices": [one]}) for one in choices]
    writer.write(chunked("".join(f"data: {piece}\n\n" for piece in pieces).encode()))
    await writer.drain()


def chunked(data: bytes) -> bytes:
    """Return a chunk of an HTTP body."""
    return b"%x\r\n%b\r\n" % (len(data), data)
