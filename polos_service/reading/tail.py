"""Streams a log: replay and live are this one loop."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

from polos.v1.event_pb2 import Event
from polos_client.errors import CallError, CursorAhead, Draining
from polos_client.wire import HEARTBEAT, root_of
from polos_service.pacer import Pacer
from polos_service.reading.subtree import Subtree, encoded
from polos_service.runs.frame import cut, position
from polos_service.runs.lineage import number_of
from polos_service.store import Logs, Slice

READ_LIMIT = 64 * 1024
"""Bytes of events in a response at most, unless its first event alone is larger.

A reader that does not read holds three responses: one in gRPC's write buffer, and one that
waits for room there, as gRPC's copy and as ours. Larger responses make no replay faster."""

PIECES = 64
"""Pieces of a log that are looked at for one response to the reader of a child, at most."""

RECONNECT_AFTER = 0.2
"""Seconds after which a reader that is sent away may find the next process."""


class Readers:
    """All who read logs. Each holds a cursor and nothing else: a slow one costs no memory.

    Attributes:
        pacer: for whoever reads a log from far behind its end.
        heartbeat: seconds of silence after which a reader is told where the log stands.
        closed: True once every reader is sent away.

    """

    def __init__(self, store: Logs, heartbeat: float = HEARTBEAT) -> None:
        self.pacer = Pacer()
        self.heartbeat = heartbeat
        self.closed = False
        self._store = store
        self._tails: set[Tail] = set()

    def close(self) -> None:
        """Send every reader away, to come back with its cursor."""
        self.closed = True
        for tail in self._tails:
            tail.wake()

    @contextmanager
    def tail(self, project: str, run_id: str, after: int) -> Iterator[Tail]:
        """Give the log of a root run, or of a child that exists, to one reader."""
        tail = Tail(self, self._store, project, run_id, after)
        leave = self._store.follow(project, root_of(run_id), tail.wake)
        self._tails.add(tail)
        try:
            yield tail
        finally:
            self._tails.discard(tail)
            leave()
            tail.stop()


class Tail:
    """A log for one reader, a response at a time; of a child, its part of the root's log.

    Not a generator: a tool that shuts the loop's generators down would end the stream. Nor an
    iterator: a StopAsyncIteration that comes out of a store would end it.
    """

    def __init__(
        self, readers: Readers, store: Logs, project: str, run_id: str, after: int
    ) -> None:
        self._readers = readers
        self._store = store
        self._run = (project, root_of(run_id))
        self._run_id = run_id
        self._branch = number_of(run_id)
        self._cursor = self._after = after
        self._subtree: Subtree | None = None
        if self._run[1] != run_id:  # which runs are below a child is told from its begin on
            self._subtree = Subtree(run_id)
            self._after = self._subtree.after
        self._behind = self._speak = True
        self._leaving = self._ended = self._woken = False
        self._refusal: CallError | None = None
        self._loop = asyncio.get_running_loop()
        self._sleep: asyncio.Future[None] | None = None
        """Pending while there is nothing to send."""
        self._said = self._loop.time()
        self._beat = self._loop.call_later(readers.heartbeat, self._heartbeat)

    def wake(self) -> None:
        """Look at the log again."""
        self._woken = True
        if self._sleep is not None and not self._sleep.done():
            self._sleep.set_result(None)

    def refuse(self, error: CallError) -> None:
        """End the reader with an error, to which the run and the last sequence sent are added."""
        self._refusal = error
        self.wake()

    def stop(self) -> None:
        """Wake up no more."""
        self._beat.cancel()

    async def next(self) -> bytes | None:
        """Return the next response; None when the terminal event was returned before.

        The first comes at once, without events if there are none: the reader knows then that
        its link works.

        Raises:
            CursorAhead: the cursor is past the newest event.
            Draining: the service is about to stop.
            RunNotFound: there is no such run, or it was deleted meanwhile.
            CallError: the reader was refused.

        """
        while not self._ended:
            if self._behind:  # whoever keeps up reads little, and must not wait
                await self._readers.pacer.next()
            else:
                await self._wait()
            if self._refusal is not None:
                place = {"run_id": self._run_id, "last_sequence": str(self._covered)}
                self._refusal.metadata = {**self._refusal.metadata, **place}
                raise self._refusal
            # Before the read: what a run wrote until then is still sent.
            self._leaving = self._readers.closed
            self._woken = False
            part = await self._store.read(*self._run, self._after, READ_LIMIT, self._branch)
            if self._covered > part.latest:
                raise ahead(self._run_id, self._covered, part.latest)
            covered = 0
            if self._subtree is None:
                events, self._after = events_of(part, self._after)
            else:
                events, part = await self._part(self._subtree, part)
                covered = self._covered
            self._behind = self._after < part.latest
            self._ended = part.ended and not self._behind
            if self._subtree is not None:
                self._ended |= self._subtree.ended
            if events or (self._speak and not self._ended):
                self._said, self._speak = self._loop.time(), False
                return events + position(part.latest, covered)
        return None

    @property
    def _covered(self) -> int:
        """The last sequence that the reader has, or that they asked to begin after."""
        return max(self._cursor, self._after)

    async def _part(self, subtree: Subtree, part: Slice) -> tuple[bytes, Slice]:
        """Return what the reader of a child gets next, from this piece of the log and further ones.

        With it comes the last piece. A child's events may be far apart, and a response costs more
        than a piece.
        """
        fresh: list[Event] = []
        size = 0
        for _ in range(PIECES):
            picked = subtree.take(part, READ_LIMIT // 2)
            self._after = subtree.after
            fresh += [one for one in picked if one.sequence > self._cursor]
            size += sum(one.ByteSize() for one in picked)
            if subtree.ended or self._after >= part.latest or size >= READ_LIMIT // 2:
                break
            await self._readers.pacer.next()
            part = await self._store.read(*self._run, self._after, READ_LIMIT, self._branch)
        return encoded(fresh), part

    async def _wait(self) -> None:
        """Wait until there is something to send: an event, or a heartbeat."""
        if self._leaving:
            raise Draining("The service is shutting down. Reconnect.", retry_after=RECONNECT_AFTER)
        if self._woken or self._readers.closed:
            return
        self._sleep = self._loop.create_future()
        await self._sleep

    def _heartbeat(self) -> None:
        """Speak if nothing was sent for long. One timer serves many waits: each needs none."""
        silent = self._loop.time() - self._said
        if silent >= self._readers.heartbeat:
            self._speak, silent = True, 0.0
            self.wake()
        self._beat = self._loop.call_later(self._readers.heartbeat - silent, self._heartbeat)


def events_of(part: Slice, after: int) -> tuple[bytes, int]:
    """Return the events that a response may hold, and the cursor behind them."""
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
    whole = not part.frames or after >= part.frames[-1].last
    return b"".join(pieces), max(after, part.covered) if whole else after


def ahead(run_id: str, after: int, latest: int) -> CursorAhead:
    """Return the error for a cursor past the newest event."""
    return CursorAhead(
        f"The cursor {after} is past the newest event of run {run_id}, which is {latest}.",
        run_id=run_id,
        after_sequence=str(after),
        latest_sequence=str(latest),
    )
