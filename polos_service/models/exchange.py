"""One exchange with a provider: a request goes out, the events of the answer come in."""

from __future__ import annotations

import asyncio

from polos_service.errors import StepError
from polos_service.models import Output, connection
from polos_service.models.body import pour
from polos_service.models.connection import Response
from polos_service.models.draft import Delta, Draft, Reader
from polos_service.models.failures import Failures
from polos_service.models.lenient import values
from polos_service.models.lost import LostError
from polos_service.models.silence import Silence
from polos_service.models.sse import Events

USAGE_SECONDS = 2.0
"""Seconds to wait for the tokens after an answer that is whole. What only keeps the connection
alive does not prolong it."""

LAST_SECONDS = 0.25
"""Seconds to wait for the last event after the answer and its tokens."""

DRAIN_SECONDS = 0.05
"""Seconds to wait for the end of a stream after its last event. A connection that was read to
its end can be used again, which saves the next call a TLS handshake."""

MAX_EVENT_BYTES = 32 * 1024 * 1024
"""Bytes of one event, or of a line that does not end: an answer of 4 MiB can come in one event,
each of its bytes escaped (`\\u0001`)."""

MAX_EVENTLESS_BYTES = 2 * 1024 * 1024
"""Bytes that may come between two events and belong to none: comments and blank lines. Those
that keep a connection alive take more than a day to come to it."""

MAX_STREAM_BYTES = 2 * 1024 * 1024 * 1024
"""Bytes that one answer may take on the wire: enough for the largest answer allowed if each
four bytes of it come in a chunk of their own of 1,000 bytes."""

EVENT_BYTES = 64
"""Bytes as which each event counts in addition: small ones take time as well."""

MAX_BEGINNING = 4096
"""Bytes kept of the first piece of a body that is not an event stream: it may be a gateway's error
message."""

_OVER = b"[DONE]"
"""The event that says that an answer is over."""

TURN_BYTES = 24 * 1024
"""Bytes of events that are handled before other tasks get a turn: a provider may send them
faster than they are handled. They get one before a large event as well: it took time to cut it
out of the stream."""


async def read(  # noqa: PLR0917 - the parties of an exchange
    response: Response,
    reader: Reader,
    draft: Draft,
    output: Output,
    failures: Failures,
    silence: Silence,
) -> None:
    """Read an answer to its end.

    Once the answer is whole, nothing that follows can spoil it: garbage, an error, a connection
    that fails or stays open.

    Raises:
        LostError: the connection failed.
        StepError: the answer breaks the protocol, exceeds a bound, or reports an error.

    """
    failures.answered(response.headers)
    if connection.compressed(response.headers):
        raise failures.malformed("it is compressed, which the request forbids", retryable=False)
    is_stream = "event-stream" in response.headers.get("content-type", "")
    try:
        async with asyncio.timeout(None) as limit:
            reading = _Reading(reader, draft, output, failures, limit, is_stream=is_stream)
            await reading.read(response, silence)
    except TimeoutError:
        if not limit.expired():
            raise
    if not (is_stream or draft.begun or draft.whole):
        raise reading.not_an_answer()


class _Reading:
    """The reading of one answer."""

    def __init__(
        self,
        reader: Reader,
        draft: Draft,
        output: Output,
        failures: Failures,
        limit: asyncio.Timeout,
        *,
        is_stream: bool,
    ) -> None:
        """Begin; `limit` is set once the answer is whole, for what follows it."""
        self._reader = reader
        self._draft = draft
        self._output = output
        self._failures = failures
        self._limit = limit
        self._is_stream = is_stream
        self._events = Events()
        self._over = False
        self._total = 0
        self._eventless = 0
        """Bytes since the last event."""
        self._until: float | None = None
        self._handled = 0
        self._ended_at = 0
        self._beginning = b""

    def not_an_answer(self) -> StepError:
        """Return the failure of a body that is something else, for example a web page."""
        begins = self._beginning.strip()
        if not begins or (begins.startswith((b"{", b"[")) and not self._events.documents):
            return self._failures.cut_short("the body is empty or breaks off")
        return self._failures.not_an_answer(self._beginning, is_json=self._events.documents == 1)

    async def read(self, response: Response, silence: Silence) -> None:
        """Read to the end of the answer, and what follows it, until the limit."""
        lost: LostError | None = None
        try:
            await pour(response, silence, self._piece)
        except LostError as error:
            lost = error
        await self._take(self._events.close())
        if lost is not None and not self._draft.whole:
            raise lost
        if self._events.documents == 1 and not self._is_stream and self._draft.finish is None:
            await self._take([_OVER])  # the body was one JSON text, and is over

    async def _piece(self, piece: bytes) -> None:
        if self._over:
            return
        self._total += len(piece)
        if not (self._is_stream or self._beginning):
            self._beginning = piece[:MAX_BEGINNING]
        if events := self._events.feed(piece):
            self._eventless = 0
            await self._take(events)
        else:
            self._eventless += len(piece)
            self._check()
            await asyncio.sleep(0)
        if self._total > MAX_STREAM_BYTES and not self._draft.whole:
            raise self._failures.too_large(f"{MAX_STREAM_BYTES} bytes on the wire")

    async def _take(self, events: list[bytes]) -> None:
        """Take events, as long as the answer is not over."""
        if self._until is not None:
            self._limit.reschedule(None)  # readers may take their time
        reader, draft, output = self._reader, self._draft, self._output
        for data in [] if self._over else events:
            self._handled += len(data) + EVENT_BYTES
            if self._handled > TURN_BYTES:
                self._handled = 0
                await asyncio.sleep(0)
            try:
                text, reasoning = reader.take(data) if type(data) is bytes else self._failed(data)
            except StepError:
                if not draft.whole:
                    raise
                self._over = True
                break
            if reasoning is not None:
                await output.reasoning(reasoning)
            if text:
                await output.text(text)
            if reader.over:
                self._over = True
                break
        if self._over or draft.finish is not None:
            self._wait()

    def _failed(self, data: bytes) -> Delta:
        """Raise what an event called `error` tells."""
        try:
            told = values(data)[0]
        except (ValueError, LookupError):
            told = data.decode(errors="replace")
        error = told.get("error") if isinstance(told, dict) else None
        raise self._failures.told(error or told)

    def _wait(self) -> None:
        """Let the answer be over soon if it is whole."""
        if not (self._over or self._draft.whole):
            self._until = None
            return
        seconds = USAGE_SECONDS if self._draft.usage is None else LAST_SECONDS
        if self._draft.ended_at != self._ended_at:
            self._ended_at, self._until = self._draft.ended_at, None  # it had not ended before
        when = asyncio.get_running_loop().time() + (DRAIN_SECONDS if self._over else seconds)
        self._until = when if self._until is None else min(when, self._until)
        self._limit.reschedule(self._until)

    def _check(self) -> None:
        """Check how much came since the last event."""
        held = self._events.held
        if not self._draft.whole and held > MAX_EVENT_BYTES:
            what = f"an event exceeds {MAX_EVENT_BYTES} bytes"
            raise self._failures.malformed(what, retryable=False)
        if not self._draft.whole and self._eventless - held > MAX_EVENTLESS_BYTES:
            what = f"{MAX_EVENTLESS_BYTES} bytes arrived without an event"
            raise self._failures.malformed(what, retryable=False)
        if not self._is_stream and self._events.stray.startswith(b"<") and not self._draft.begun:
            raise self.not_an_answer()
