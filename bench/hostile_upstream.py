"""A provider that attacks whoever asks it: the name of the model says how."""

from __future__ import annotations

import asyncio
import contextlib

ERROR_BODY = 1_000_000_000
"""Bytes of the body of an error."""

PIECE = b"x" * 1_000_000

ERROR_HEAD = (
    b"HTTP/1.1 400 Bad Request\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"
    % ERROR_BODY
)
STREAM_HEAD = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
)
FRAGMENTS = (
    b'data: {"id":"c","object":"chat.completion.chunk","created":1,"model":"m","choices":'
    b'[{"index":0,"delta":{"tool_calls":[%b]},"finish_reason":null}]}\n\n'
    % b",".join([b"{}"] * 2000)
)


TOKENS = 400_000
"""Tokens of a long answer: a byte each, so that it stays within what an answer may have."""

TOKEN = (
    b'data: {"id":"c","object":"chat.completion.chunk","created":1,"model":"m","choices":'
    b'[{"index":0,"delta":{"content":"x"},"finish_reason":null}]}\n\n'
)
ENDING = (
    b'data: {"id":"c","object":"chat.completion.chunk","created":1,"model":"m","choices":'
    b'[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\ndata: [DONE]\n\n'
)


async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer a request, until the other side has had enough."""
    with contextlib.suppress(ConnectionError):
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        length = int(head.partition(b"content-length:")[2].split(b"\r\n")[0])
        body = await reader.readexactly(length)
        if b'"huge-error"' in body:
            await huge_error(writer)
        elif b'"short-tokens"' in body:
            await short_tokens(writer)
        else:
            await endless_fragments(writer)
    writer.close()


async def huge_error(writer: asyncio.StreamWriter) -> None:
    """Refuse the request, at length."""
    writer.write(ERROR_HEAD)
    for _ in range(ERROR_BODY // len(PIECE)):
        writer.write(PIECE)
        await writer.drain()


async def endless_fragments(writer: asyncio.StreamWriter) -> None:
    """Add nothing to no tool call, for ever."""
    many = FRAGMENTS * 10
    writer.write(STREAM_HEAD)
    while True:
        writer.write(b"%x\r\n%b\r\n" % (len(many), many))
        await writer.drain()


async def short_tokens(writer: asyncio.StreamWriter) -> None:
    """Say as many tokens as go into an answer."""
    piece = TOKEN * 1000
    writer.write(STREAM_HEAD)
    for _ in range(TOKENS // 1000):
        writer.write(b"%x\r\n%b\r\n" % (len(piece), piece))
        await writer.drain()
    writer.write(b"%x\r\n%b\r\n0\r\n\r\n" % (len(ENDING), ENDING))
    await writer.drain()


async def serve() -> None:
    """Serve until the process is ended."""
    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    print(f"listens on 127.0.0.1:{server.sockets[0].getsockname()[1]}", flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(serve())
