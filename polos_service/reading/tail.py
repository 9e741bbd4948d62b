"""Streams a log: replay and live are this one loop."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from polos_client.errors import CursorAhead, Draining
from polos_client.wire import HEARTBEAT
from polos_service.pacer import Pacer
from polos_service.runs.frame import cut, position
from polos_service.store import RunStore, Slice

READ_LIMIT = 64 * 1024
"""Bytes of events in a response at most, unless its first event alone is larger.

A reader that does not read holds three responses: one in gRPC's write buffer, and one that
waits for room there, as gRPC's copy and as ours. Larger responses make no replay faster."""

RECONNECT_AFTER = 0.2
"""Seconds after which a reader that is sent away may find the next process."""


class Readers:
    """All who read logs. Each holds a cursor and nothing else: a slow one costs no memory.

    Attributes:
        pacer: for whoever reads a log from far behind its end.

    """

    def __init__(self, store: RunStore, heartbeat: float = HEARTBEAT) -> None:
        self.pacer = Pacer()
        self._store = store
        self._heartbeat = heartbeat
        self._closed = False
        self._waits: set[asyncio.Timeout] = set()

    def close(self) -> None:
        """Send every reader away, to come back with its cursor."""
        self._closed = True
        now = asyncio.get_running_loop().time()
        for wait in self._waits:
            if not wait.expired():
                wait.reschedule(now)

    async def tail(self, project: str, run_id: str, after: int) -> AsyncIterator[bytes]:
        """Yield responses from the cursor on, until the terminal event was sent.

        The first comes at once, without events if there are none: the reader knows then
        that its link works.

        Raises:
            CursorAhead: the cursor is past the newest event.
            Draining: the service is about to stop.
            RunNotFound: there is no such run, or it was deleted meanwhile.

        """
        speak = behind = True
        while True:
            if behind:  # whoever keeps up reads little, and must not wait
                await self.pacer.next()
            closed = self._closed  # before the read: what a run wrote until then is still sent
            part = await self._store.read(project, run_id, after, READ_LIMIT)
            latest, ended = part.latest, part.ended
            if after > latest:
                raise ahead(run_id, after, latest)
            following = bool(part.frames)
            response, after = response_of(part, after)
            del part  # a reader that does not read must not hold the frames
            if following or (speak and not ended):
                yield response
            if ended and after == latest:
                return
            behind = after < latest
            if behind:
                continue
            if closed:
                raise Draining(
                    "The service is shutting down. Reconnect.", retry_after=RECONNECT_AFTER
                )
            speak = not await self._grown(project, run_id, after)

    async def _grown(self, project: str, run_id: str, after: int) -> bool:
        """Wait for more, or for `close`; False if it is time for a heartbeat."""
        if self._closed:
            return True
        wait = asyncio.timeout(self._heartbeat)
        try:
            async with wait:
                self._waits.add(wait)
                await self._store.wait(project, run_id, after)
        except TimeoutError:
            return self._closed
        finally:
            self._waits.discard(wait)
        return True


def response_of(part: Slice, after: int) -> tuple[bytes, int]:
    """Return the events that a response may hold, with the position, and the cursor behind."""
    pieces: list[bytes] = []
    size = 0
    for frame in part.frames:
        if frame.first > after and size + len(frame.data) <= READ_LIMIT:
            piece, after = frame.data, frame.last
        elif pieces:
            break
        else:
            skip = max(after + 1 - frame.first, 0)
            piece, events = cut(frame.data, skip, READ_LIMIT)
            after = frame.first - 1 + skip + events
        pieces.append(piece)
        size += len(piece)
    return b"".join([*pieces, position(part.latest)]), after


def ahead(run_id: str, after: int, latest: int) -> CursorAhead:
    """Return the error for a cursor past the newest event."""
    return CursorAhead(
        f"The cursor {after} is past the newest event of run {run_id}, which is {latest}.",
        run_id=run_id,
        after_sequence=str(after),
        latest_sequence=str(latest),
    )
