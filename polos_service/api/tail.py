"""Streams a log: replay and live are this one loop."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence

from polos_client.errors import CursorAhead, Draining
from polos_service.runs.frame import cut, position
from polos_service.store import Frame, RunStore

READ_LIMIT = 1024 * 1024
"""Bytes of frames in a response, up to the frame that reaches it: at most 1.5 MiB."""

HEARTBEAT = 15.0
"""Seconds of silence after which a response without events is sent."""

RECONNECT_AFTER = 0.2
"""Seconds after which a reader that is sent away may find the next process."""


class Tails:
    """All readers. Each holds a cursor and nothing else: a slow one costs no memory."""

    def __init__(self, store: RunStore, heartbeat: float = HEARTBEAT) -> None:
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

        Raises:
            CursorAhead: the cursor is past the newest event.
            Draining: the service is about to stop.
            RunNotFound: there is no such run, or it was deleted meanwhile.

        """
        while True:
            closed = self._closed  # before the read: what a run wrote until then is still sent
            part = await self._store.read(project, run_id, after, READ_LIMIT)
            if after > part.latest:
                raise ahead(run_id, after, part.latest)
            if part.frames:
                yield joined(part.frames, after) + position(part.latest)
                after = part.frames[-1].last
            if part.ended and after == part.latest:
                return
            if after < part.latest:
                continue
            if closed:
                raise Draining(
                    "The service is about to stop. Come back.", retry_after=RECONNECT_AFTER
                )
            if not await self._grown(project, run_id, after):
                yield position(after)

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


def joined(frames: Sequence[Frame], after: int) -> bytes:
    """Return the frames as one, without events up to the cursor."""
    first, *rest = frames
    head = first.data if first.first > after else cut(first.data, after)
    return b"".join([head, *(frame.data for frame in rest)])


def ahead(run_id: str, after: int, latest: int) -> CursorAhead:
    """Return the error for a cursor past the newest event."""
    return CursorAhead(
        f"The cursor {after} is past the newest event of run {run_id}, which is {latest}.",
        run_id=run_id,
        after_sequence=str(after),
        latest_sequence=str(latest),
    )
