"""One exchange with a provider: a request goes out, the events of the answer come in."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator

from polos_service.models import Output, connection
from polos_service.models.connection import Response
from polos_service.models.draft import Reader
from polos_service.models.failures import Failures
from polos_service.models.lost import LostError
from polos_service.models.silence import Silence
from polos_service.models.sse import DataLines

DRAIN_SECONDS = 0.05
"""Seconds to wait for the end of a stream after its last event. A connection that was read to
its end can be used again, which saves the next call a TLS handshake."""

MAX_EVENTLESS_BYTES = 32 * 1024 * 1024
"""Bytes that may come without an event: a line that never ends, comments, blank lines. An
answer of 4 MiB can come in one event, each of its bytes escaped (`\\u0001`); comments that keep
a connection alive take more than a day to come to it."""

MAX_STREAM_BYTES = 2 * 1024 * 1024 * 1024
"""Bytes that one answer may take on the wire: enough for the largest answer allowed if each
four bytes of it come in a chunk of their own of 1,000 bytes."""

TURN_BYTES = 16 * 1024
"""Bytes of events that are handled before other tasks get a turn: a provider may send them
faster than they are handled."""


async def read(
    response: Response,
    reader: Reader,
    output: Output,
    failures: Failures,
    silence: Silence,
) -> None:
    """Read an answer to its end.

    Raises:
        LostError: the connection failed.
        StepError: the answer breaks the protocol, exceeds a bound, or reports an error.

    """
    failures.answered(response.headers)
    if connection.compressed(response.headers):
        raise failures.malformed("it is compressed, which the request forbids", retryable=False)
    async with contextlib.aclosing(connection.pieces(response, silence)) as pieces:
        if await _events(pieces, reader, output, failures):
            return
    if "event-stream" not in response.headers.get("content-type", ""):
        raise failures.malformed("it is not an event stream; check the base URL", retryable=False)


async def _events(
    pieces: AsyncGenerator[bytes, None],
    reader: Reader,
    output: Output,
    failures: Failures,
) -> bool:
    """Read events to the end of the answer; return whether there was any."""
    lines, found = DataLines(), False
    total = eventless = handled = 0
    async for piece in pieces:
        total += len(piece)
        eventless += len(piece)
        for data in lines.feed(piece):
            found, eventless = True, 0
            text, reasoning = reader.take(data)
            if reasoning is not None:
                await output.reasoning(reasoning)
            if text:
                await output.text(text)
            if reader.over:
                await _drain(pieces)
                return True
            handled += len(data)
            if handled > TURN_BYTES:
                handled = 0
                await asyncio.sleep(0)
        if eventless > MAX_EVENTLESS_BYTES:
            what = f"{MAX_EVENTLESS_BYTES} bytes arrived without an event"
            raise failures.malformed(what, retryable=False)
        if total > MAX_STREAM_BYTES:
            raise failures.too_large(f"{MAX_STREAM_BYTES} bytes on the wire")
    return found


async def _drain(pieces: AsyncGenerator[bytes, None]) -> None:
    with contextlib.suppress(TimeoutError, LostError):
        async with asyncio.timeout(DRAIN_SECONDS):
            async for _ in pieces:
                pass
