"""The logs of all runs in one stream: a subject each, a message for each frame."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass

from polos_client.errors import StoreUnavailable
from polos_service.store import Entry, Frame
from polos_service.store.nats.head import Head, Mark
from polos_service.store.nats.link import Conflict, Link
from polos_service.store.nats.places import Known, Places
from polos_service.store.nats.stored import Stored
from polos_service.store.nats.subjects import LOG

BATCH = 1000
"""Messages that one request brings at most."""

PAGE = 1024 * 1024
"""Bytes of history in one request."""

LEAST = 16 * 1024
"""Bytes that a request asks for at least: what is not needed costs less than a further one."""

NEAR = 64
"""Messages of the whole stream that are read rather than searched in."""


@dataclass(frozen=True, slots=True)
class Last:
    """The last message of a log. `time` is the server's, as it wrote it."""

    sequence: int
    head: Head
    time: str


class Superseded(Exception):
    """The log has another last message than its writer believed. `last` is it, if any."""

    def __init__(self, last: Last | None) -> None:
        super().__init__("the log has another last message")
        self.last = last


class Log:
    """Appends and reads. What is read for recovery is proved to be whole."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._places = Places()

    async def last(self, subject: str) -> Last | None:
        """Return the last message, from the stream's leader."""
        return last_of(await self._link.last(LOG, subject))

    async def lasts(self, subjects: list[str]) -> dict[str, Last]:
        """Return the last message of each log that has one, from any replica."""
        if not subjects:
            return {}
        found = await self._link.batch(LOG, {"multi_last": subjects, "batch": len(subjects)})
        return {one.subject: Last(one.sequence, Head.of(one.headers), one.time) for one in found}

    async def append(self, subject: str, head: Head, payload: bytes, expected: int) -> int:
        """Append a message behind the one with sequence `expected`; return its own.

        Raises:
            Superseded: the last message is another one, and not this.
            StoreUnavailable: it is not known whether it was stored.

        """
        try:
            return await self._link.put(
                LOG,
                subject,
                payload,
                expected=expected,
                same=lambda last: Head.of(last.headers) == head,
                headers=head.headers(),
            )
        except Conflict as conflict:
            raise Superseded(last_of(conflict.last)) from None

    async def remove(self, subject: str) -> None:
        """Remove a log whole."""
        self._places.forget(subject)
        await self._link.purge(LOG, subject)

    async def history(self, subject: str, until: int) -> AsyncIterator[Entry]:
        """Yield the log up to the message with sequence `until`, its holder's own.

        Pages come from any replica. Each message names the one before it, so a page that
        lacks anything shows, and the leader is asked instead.
        """
        before = 0
        while before < until:
            page = chained(await self._page(subject, before + 1, PAGE), before, until)
            if not page:
                message = await self._link.next(LOG, subject, before + 1)
                page = chained([message] if message else [], before, until)
            if not page:
                raise StoreUnavailable(
                    f"NATS has lost messages of {subject} behind {before}. Restore the stream."
                )
            for one in page:
                yield Head.of(one.headers).entry(one.data)
            before = page[-1].sequence

    async def read(self, subject: str, after: int, limit: int) -> list[Frame]:
        """Return the frames that hold events after a cursor, up to `limit` bytes or one more.

        None is missing between them. There are none if nothing follows the cursor, or if
        what follows was removed.
        """
        known = self._places.of(subject)
        place = await self._find(subject, after + 1, known)
        frames: list[Frame] = []
        size = 0
        while not frames or size < limit:
            page = await self._page(subject, place, limit - size)
            if not page and not frames:
                page = await self._from_leader(subject, place)
            if not page:
                break
            for one in page:
                head = Head.of(one.headers)
                place = one.sequence + 1
                if head.mark is not Mark.EVENTS or head.last <= after:
                    continue
                if head.first > (frames[-1].last if frames else after) + 1:
                    return frames  # a replica that is behind, or a log that is being removed
                frames.append(head.frame(one.data))
                size += head.size
                if size >= limit:
                    break
        if frames:
            known.add(frames[-1].last + 1, place)
        return frames

    async def _from_leader(self, subject: str, place: int) -> list[Stored]:
        message = await self._link.next(LOG, subject, place)
        return [] if message is None else [message]

    async def _page(self, subject: str, place: int, limit: int) -> list[Stored]:
        return await self._link.batch(
            LOG,
            {
                "seq": place,
                "next_by_subj": subject,
                "batch": BATCH,
                "max_bytes": max(limit, LEAST),
            },
        )

    async def _find(self, subject: str, event: int, known: Known) -> int:
        """Return a place in the stream from which on the frame of an event is found."""
        (first, low), behind = known.around(event)
        if first == event:
            return low
        if behind is None:
            last = await self._link.last(LOG, subject)
            if last is None:
                return low
            behind = (0, last.sequence + 1)
        high = behind[1]
        while high - low > NEAR:
            middle = (low + high) // 2
            message = await self._link.next(LOG, subject, middle)
            if message is None or Head.of(message.headers).first > event:
                high = middle
            else:
                low = message.sequence
        known.add(event, low)
        return low


def last_of(message: Stored | None) -> Last | None:
    """Return a message as the last one of its log."""
    if message is None:
        return None
    return Last(message.sequence, Head.of(message.headers), message.time)


def chained(page: list[Stored], before: int, until: int) -> list[Stored]:
    """Return the messages that follow each other without a gap behind a sequence."""
    found = []
    for one in page:
        if int(one.headers["Nats-Expected-Last-Subject-Sequence"]) != before:
            break
        found.append(one)
        before = one.sequence
        if before == until:
            break
    return found
