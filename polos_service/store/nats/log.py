"""The logs of all runs in one stream: a subject each, a message for each frame.

A message that is not ours changes nothing: readers skip it, and each of our messages names
the one of ours before it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator

from polos_client.errors import StoreUnavailable
from polos_service.store import Entry, Frame
from polos_service.store.nats.frames import BEHIND, Head, LogEnd, Mark, before
from polos_service.store.nats.jetstream import Conflict, JetStream
from polos_service.store.nats.messages import StoredMessage
from polos_service.store.nats.positions import Ends, LogPositions, Positions
from polos_service.store.nats.subjects import LOG

LEAST = 16 * 1024
"""Bytes that a request asks for at least: what is not needed costs less than a further one."""

NEAR = 64
"""Messages of the whole stream that are read rather than searched in."""

TRIES = 100
"""Foreign messages that may come in between, one after the other, while one of ours is appended."""

Ours = tuple[StoredMessage, Head]
"""A message of a log that is ours, and its head."""


class Superseded(StoreUnavailable):
    """The log has another last message than its writer believed. `last` is it, if any."""

    def __init__(self, last: LogEnd | None) -> None:
        super().__init__("Another replica wrote to the run's log at the same time. Try again.")
        self.last = last


class Log:
    """Appends and reads. What is read for recovery is proved to be whole."""

    def __init__(self, jetstream: JetStream) -> None:
        self._jetstream = jetstream
        self._positions = Positions()
        self._ends = Ends(jetstream)

    async def last(self, subject: str) -> LogEnd | None:
        """Return the last message of ours, from the stream's leader."""
        return await self._ends.ours(subject, await self._jetstream.last(LOG, subject))

    async def lasts(self, subjects: list[str]) -> dict[str, LogEnd]:
        """Return the last message of ours of each log that has one, from any replica."""
        found: dict[str, LogEnd] = {}
        async for one in self._jetstream.lasts(LOG, subjects):
            last = await self._ends.ours(one.subject, one)
            if last is not None:
                found[one.subject] = last
        return found

    async def append(self, subject: str, head: Head, payload: bytes, expected: int) -> int:
        """Append a message behind ours with sequence `expected`; return its own.

        Raises:
            Superseded: the last message of ours is another one, and not this.
            StoreUnavailable: it is not known whether it was stored.

        """
        end = expected
        for _ in range(TRIES):
            named = {} if end == expected else {BEHIND: str(expected)}
            try:
                return await self._jetstream.put(
                    LOG,
                    subject,
                    payload,
                    expected=end,
                    same=lambda last: head == self._head(last),
                    headers={**head.headers(), **named},
                )
            except Conflict as conflict:
                last = await self._ends.ours(subject, conflict.last)
                if last is not None and last.head == head:
                    return last.sequence  # its acknowledgement was lost
                if conflict.last is None or (last.sequence if last else 0) != expected:
                    raise Superseded(last) from None
                end = conflict.last.sequence
        raise StoreUnavailable(
            f"Another program keeps writing to {subject}. Find out who publishes there, and "
            "give the service a NATS account of its own."
        )

    async def remove(self, subject: str) -> None:
        """Remove a log whole."""
        self._positions.forget(subject)
        self._ends.forget(subject)
        await self._jetstream.purge(LOG, subject)

    async def history(self, subject: str, until: int) -> AsyncIterator[Entry]:
        """Yield the log up to the message with sequence `until`, its holder's own.

        Pages come from any replica. Each message names the one before it, so a page that
        lacks anything shows, and the leader is asked instead.
        """
        reached = position = 0  # our last message, and the last one of anybody
        while reached < until:
            page = await self._jetstream.page(LOG, subject, position + 1)
            ours = self._ours(page)
            if page and not ours:
                position = page[-1].sequence
                continue
            found = chained(ours, reached, until)
            if not found:
                message = await self._next(subject, reached + 1)
                found = chained([message] if message else [], reached, until)
            if not found:
                raise StoreUnavailable(
                    f"NATS has lost messages of {subject} after {reached}. Restore the stream, or "
                    "cancel and delete the run."
                )
            for one, head in found:
                yield head.entry(one.data)
            reached = position = found[-1][0].sequence

    async def read(self, subject: str, after: int, limit: int) -> list[Frame]:
        """Return the frames that hold events after a cursor, up to `limit` bytes or one more.

        None is missing between them. There are none if nothing follows the cursor, or if
        what follows was removed.
        """
        known = self._positions.of(subject)
        position = await self._find(subject, after + 1, known)
        frames: list[Frame] = []
        size = behind = 0
        while not frames or size < limit:
            page = await self._jetstream.page(LOG, subject, position, max(limit - size, LEAST))
            if not page and not frames:
                page = await self._from_leader(subject, position)
            if not page:
                break
            for one, head in self._ours(page):
                if head.mark is not Mark.EVENTS or head.last <= after:
                    continue
                if head.first > (frames[-1].last if frames else after) + 1:
                    return frames  # a replica that is behind, or a log that is being removed
                if frames and size >= limit:
                    break
                frames.append(head.frame(one.data))
                size += head.size
                behind = one.sequence + 1
            position = page[-1].sequence + 1
        if frames:
            known.add(frames[-1].last + 1, behind)
        return frames

    async def private(self, subject: str, event: int) -> bytes:
        """Return the private part of the frame that holds an event; nothing if there is none."""
        position = await self._find(subject, event, self._positions.of(subject))
        while found := await self._next(subject, position):
            message, head = found
            if head.mark is Mark.EVENTS and head.last >= event:
                return head.entry(message.data).private
            position = message.sequence + 1
        return b""

    def _head(self, message: StoredMessage) -> Head | None:
        last = self._jetstream.foreign.read(LogEnd.of, message)
        return None if last is None else last.head

    def _ours(self, page: list[StoredMessage]) -> list[Ours]:
        heads = ((one, self._head(one)) for one in page)
        return [(one, head) for one, head in heads if head is not None]

    async def _next(self, subject: str, position: int) -> Ours | None:
        """Return the first message of ours from a position on."""
        page = await self._from_leader(subject, position)
        while page:
            ours = self._ours(page)
            if ours:
                return ours[0]
            position = page[-1].sequence + 1
            page = await self._jetstream.page(LOG, subject, position)
            page = page or await self._from_leader(subject, position)
        return None

    async def _from_leader(self, subject: str, position: int) -> list[StoredMessage]:
        message = await self._jetstream.next(LOG, subject, position)
        return [] if message is None else [message]

    async def _find(self, subject: str, event: int, known: LogPositions) -> int:
        """Return a position in the stream from which on the frame of an event is found."""
        (first, low), behind = known.around(event)
        if first == event:
            return low
        if behind is None:
            last = await self._jetstream.last(LOG, subject)
            if last is None:
                return low
            behind = (0, last.sequence + 1)
        high = behind[1]
        while high - low > NEAR:
            middle = (low + high) // 2
            found = await self._next(subject, middle)
            if found is None or found[1].first > event:
                high = middle
            else:
                low = found[0].sequence
        known.add(event, low)
        return low


def chained(ours: list[Ours], reached: int, until: int) -> list[Ours]:
    """Return the messages that follow each other without a gap behind a sequence."""
    found = []
    for one, head in ours:
        if reached == until or before(one.headers) != reached:
            break
        found.append((one, head))
        reached = one.sequence
    return found
