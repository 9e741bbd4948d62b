"""Where things are in logs, as far as this replica remembers.

The last message of ours, though foreign ones may stand behind it; and the messages near the
events that were read last, so that a reader who reads on does not search again.
"""

from __future__ import annotations

from bisect import bisect_right, insort
from collections import OrderedDict
from dataclasses import dataclass, field

from polos_service.store.nats.frames import LogEnd
from polos_service.store.nats.jetstream import JetStream
from polos_service.store.nats.messages import StoredMessage
from polos_service.store.nats.subjects import LOG

FIRST_WIDTH = 256
"""Messages of the whole stream that are looked through first, backwards from the end."""

GROWTH = 8
"""How many times more messages each further look covers."""

LOGS_LIMIT = 1024
"""Logs of which positions are remembered."""

POSITIONS_LIMIT = 32
"""Positions that are remembered of each log."""


class Ends:
    """Finds the last message of ours in a log."""

    def __init__(self, jetstream: JetStream) -> None:
        self._jetstream = jetstream
        self._known: OrderedDict[str, tuple[int, int]] = OrderedDict()
        """The last message that was looked at, and the last one of ours up to it, by subject."""

    async def ours(self, subject: str, end: StoredMessage | None) -> LogEnd | None:
        """Return the last message of ours up to `end`, which is one of the log; None if none is."""
        if end is None:
            return None
        last = self._jetstream.foreign.read(LogEnd.of, end)
        if last is not None:
            return last
        searched, known = self._known.pop(subject, (0, 0))
        last = await self._search(subject, searched + 1, end.sequence)
        if last is None and known:
            message = await self._jetstream.next(LOG, subject, known)
            if message is not None and message.sequence == known:  # it was not removed since
                last = self._jetstream.foreign.read(LogEnd.of, message)
        self._known[subject] = (end.sequence, 0 if last is None else last.sequence)
        if len(self._known) > LOGS_LIMIT:
            self._known.popitem(last=False)
        return last

    def forget(self, subject: str) -> None:
        """Forget a log that is removed."""
        self._known.pop(subject, None)

    async def _search(self, subject: str, low: int, high: int) -> LogEnd | None:
        """Search backwards through the messages from `low` on that stand before `high`."""
        width = FIRST_WIDTH
        while high > low:
            start = max(low, high - width)
            last = await self._newest(subject, start, high)
            if last is not None:
                return last
            high, width = start, GROWTH * width
        return None

    async def _newest(self, subject: str, start: int, high: int) -> LogEnd | None:
        newest: LogEnd | None = None
        while start < high:
            page = await self._jetstream.page_or_next(LOG, subject, start)
            for one in page:
                if one.sequence < high:
                    newest = self._jetstream.foreign.read(LogEnd.of, one) or newest
            start = page[-1].sequence + 1 if page else high
        return newest


@dataclass(slots=True)
class LogPositions:
    """Positions in one log, sorted: an event's sequence, and the stream's for its frame."""

    known: list[tuple[int, int]] = field(default_factory=list)

    def add(self, first: int, sequence: int) -> None:
        """Remember that the frame which begins with event `first` is there, or comes later."""
        position = (first, sequence)
        if position not in self.known:
            insort(self.known, position)
        if len(self.known) > POSITIONS_LIMIT:
            del self.known[len(self.known) // 2]

    def around(self, event: int) -> tuple[tuple[int, int], tuple[int, int] | None]:
        """Return the position at or before an event, and the next one, if one is known."""
        index = bisect_right(self.known, (event, 1 << 63))
        before = self.known[index - 1] if index else (1, 1)
        return before, self.known[index] if index < len(self.known) else None


class Positions:
    """The positions in the logs that were read last."""

    def __init__(self) -> None:
        self._known: OrderedDict[str, LogPositions] = OrderedDict()

    def of(self, subject: str) -> LogPositions:
        """Return what is known of a log; asking keeps it among the last."""
        known = self._known.pop(subject, None) or LogPositions()
        self._known[subject] = known
        if len(self._known) > LOGS_LIMIT:
            self._known.popitem(last=False)
        return known

    def forget(self, subject: str) -> None:
        """Forget a log that is removed."""
        self._known.pop(subject, None)
