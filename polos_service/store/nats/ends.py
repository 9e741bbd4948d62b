"""The last message of ours in a log, though foreign ones may stand behind it."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

from polos_service.store.nats.head import Head, before
from polos_service.store.nats.link import Link
from polos_service.store.nats.stored import Stored
from polos_service.store.nats.subjects import LOG

BATCH = 1000
"""Messages that one request brings at most."""

FIRST_WIDTH, GROWTH = 256, 8
"""Messages of the whole stream that are looked through first, and how many times more then."""

REMEMBERED = 1024
"""Logs with foreign messages at their end of which it is remembered where ours end."""


@dataclass(frozen=True, slots=True)
class Last:
    """The last message of ours in a log. `time` is the server's, as it wrote it."""

    sequence: int
    head: Head
    time: str

    @classmethod
    def of(cls, message: Stored) -> Last:
        """Return a message as the last one of its log.

        Raises:
            NotOurs: it is not one of ours.

        """
        before(message.headers)
        return cls(message.sequence, Head.of(message.headers), message.time)


class Ends:
    """Finds the ends of logs."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._known: OrderedDict[str, tuple[int, int]] = OrderedDict()

    async def ours(self, subject: str, end: Stored | None) -> Last | None:
        """Return the last message of ours up to `end`, which is one of the log; None if none is."""
        if end is None:
            return None
        last = self._link.foreign.read(Last.of, end)
        if last is not None:
            return last
        searched, known = self._known.pop(subject, (0, 0))
        last = await self._between(subject, searched + 1, end.sequence)
        if last is None and known:
            message = await self._link.next(LOG, subject, known)
            if message is not None and message.sequence == known:  # it was not removed since
                last = self._link.foreign.read(Last.of, message)
        self._known[subject] = (end.sequence, 0 if last is None else last.sequence)
        if len(self._known) > REMEMBERED:
            self._known.popitem(last=False)
        return last

    def forget(self, subject: str) -> None:
        """Forget a log that is removed."""
        self._known.pop(subject, None)

    async def _between(self, subject: str, low: int, high: int) -> Last | None:
        """Search backwards through the messages from `low` on that stand before `high`."""
        width = FIRST_WIDTH
        while high > low:
            start = max(low, high - width)
            last = await self._newest(subject, start, high)
            if last is not None:
                return last
            high, width = start, GROWTH * width
        return None

    async def _newest(self, subject: str, place: int, high: int) -> Last | None:
        newest: Last | None = None
        while place < high:
            page = await self._page(subject, place)
            for one in page:
                if one.sequence < high:
                    newest = self._link.foreign.read(Last.of, one) or newest
            place = page[-1].sequence + 1 if page else high
        return newest

    async def _page(self, subject: str, place: int) -> list[Stored]:
        """Return messages without a gap: where any replica has none, the leader may."""
        body = {"seq": place, "next_by_subj": subject, "batch": BATCH}
        page = await self._link.batch(LOG, body)
        if not page:
            message = await self._link.next(LOG, subject, place)
            page = [] if message is None else [message]
        return page
