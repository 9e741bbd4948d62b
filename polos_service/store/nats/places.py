"""Where in the stream events were found: a cursor near one of them needs no search."""

from __future__ import annotations

from bisect import bisect_right, insort
from collections import OrderedDict
from dataclasses import dataclass, field

RUNS_LIMIT = 1024
PLACES_LIMIT = 32
"""Runs, and places of each, that are remembered."""


@dataclass(slots=True)
class Known:
    """Places of one log, sorted: an event's sequence, and the stream's for its frame."""

    places: list[tuple[int, int]] = field(default_factory=list)

    def add(self, first: int, sequence: int) -> None:
        """Remember that the frame which begins with event `first` is there, or comes later."""
        place = (first, sequence)
        if place not in self.places:
            insort(self.places, place)
        if len(self.places) > PLACES_LIMIT:
            del self.places[len(self.places) // 2]

    def around(self, event: int) -> tuple[tuple[int, int], tuple[int, int] | None]:
        """Return the place at or before an event, and the next one behind it, if one is known."""
        index = bisect_right(self.places, (event, 1 << 63))
        before = self.places[index - 1] if index else (1, 1)
        return before, self.places[index] if index < len(self.places) else None


class Places:
    """The places of the logs that were read last."""

    def __init__(self) -> None:
        self._known: OrderedDict[str, Known] = OrderedDict()

    def of(self, subject: str) -> Known:
        """Return what is known of a log; to ask keeps it among the last."""
        known = self._known.pop(subject, None) or Known()
        self._known[subject] = known
        if len(self._known) > RUNS_LIMIT:
            self._known.popitem(last=False)
        return known

    def forget(self, subject: str) -> None:
        """Forget a log that is removed."""
        self._known.pop(subject, None)
