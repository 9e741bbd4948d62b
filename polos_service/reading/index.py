"""Which frames of a log have events of which run: it lets readers of one child pass the others by.

It is a cache. A reader for whom it says nothing looks through every frame.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left, bisect_right
from collections import OrderedDict
from collections.abc import Collection

from polos_service.runs.frame import decode
from polos_service.store import Frame, Key, Slice

KEPT = 32
"""Logs that are indexed at most; those whose children were not read for longest are forgotten."""

SPARSE = 8
"""A child that is in fewer than one of so many frames is read frame by frame."""

END = ""
"""What stands for a run's id where a log ends."""


class Indexes:
    """The indexes of the logs whose children were read last."""

    def __init__(self) -> None:
        self._kept: OrderedDict[Key, Index] = OrderedDict()

    def of(self, key: Key) -> Index:
        """Return the index of the log of a root run."""
        index = self._kept.setdefault(key, Index())
        self._kept.move_to_end(key)
        if len(self._kept) > KEPT:
            self._kept.popitem(last=False)
        return index


class Index:
    """The index of one log, as far as any reader of a child has come.

    Attributes:
        covered: the cursor behind which it knows nothing.

    """

    def __init__(self) -> None:
        self.covered = 0
        self._frames = array("q")
        """The cursor before each frame."""
        self._places: dict[str, array[int]] = {}
        """The same, of the frames that name a run: as their own, or as the parent of a new one."""

    def add(self, part: Slice) -> None:
        """Take frames into account, those that follow what is covered."""
        for frame in part.frames:
            if frame.first == self.covered + 1:
                self._add(frame)

    def next(self, runs: Collection[str], after: int) -> int:
        """Return the cursor, from `after` on, behind which the next events of these runs may be."""
        if after >= self.covered:
            return after
        at = self._frames[bisect_right(self._frames, after) - 1]
        found = self.covered
        for run_id in (*runs, END):
            places = self._places.get(run_id, self._frames[:0])
            if (place := bisect_left(places, at)) < len(places):
                found = min(found, places[place])
        return max(found, after)

    def is_sparse(self, runs: Collection[str], after: int) -> bool:
        """Return whether the frames behind a cursor are better read one by one for these runs."""
        own = sum(len(self._places.get(run_id, ())) for run_id in runs)
        return after < self.covered and own * SPARSE < len(self._frames)

    def _add(self, frame: Frame) -> None:
        named: set[str] = set()
        for event in decode(frame.data):
            if event.run_id not in self._places and event.HasField("parent_run_id"):
                named.add(event.parent_run_id)
            named.add(event.run_id)
            if event.terminal:
                named.add(END)
        place = frame.first - 1
        for run_id in named:
            self._places.setdefault(run_id, array("q")).append(place)
        self._frames.append(place)
        self.covered = frame.last
