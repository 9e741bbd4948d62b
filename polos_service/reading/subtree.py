"""One child out of the log of its root: its events, and those of the runs below it."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from itertools import accumulate

from polos.v1.event_pb2 import Event
from polos.v1.run_service_pb2 import StreamRunResponse
from polos_service.runs.frame import split
from polos_service.runs.journal import ENDS
from polos_service.runs.lineage import number_of
from polos_service.store import Slice

MARKS = 8
"""Runs at most whose ids are looked for in encoded events. To decode all of them is quicker than to
look for more."""


def begin_of(run_id: str) -> int:
    """Return the cursor behind which the log begins to tell of a run: 0 of a root run."""
    return (number_of(run_id) or 1) - 1


class Subtree:
    """Picks the events of a child and of the runs below it out of the log, from its begin on.

    Attributes:
        after: the cursor behind which the log is to be read next.
        ended: True once the event that ends the child was picked, or the root's.

    """

    def __init__(self, run_id: str) -> None:
        self.after = begin_of(run_id)
        self.ended = False
        self._runs = {run_id}
        self._run_id = run_id
        self._marks = [mark(run_id)]

    def take(self, part: Slice, limit: int) -> list[Event]:
        """Return the next events that belong to it, and move the cursor.

        The event that ends it is terminal, and nothing follows.

        Args:
            part: what the log has behind the cursor.
            limit: bytes of events at most; an event more.

        """
        picked: list[Event] = []
        room = limit
        for frame in part.frames:
            ends = part.ended and frame.last == part.latest
            for piece in self._pieces(frame.data, ends=ends):
                event = Event.FromString(piece)
                if event.sequence <= self.after or not self._has(event):
                    continue
                self.after = event.sequence
                picked.append(event)
                room -= len(piece)
                if self.ended or room <= 0:
                    return picked
            self.after = frame.last
        self.after = max(self.after, part.covered)
        return picked

    def _pieces(self, data: bytes, *, ends: bool) -> Iterator[bytes]:
        """Yield the encoded events of a frame that may belong to it; `ends`: its last, too."""
        if not ends and self._find(data, 0) == len(data):
            return
        pieces = split(data)
        whole, following = b"".join(pieces), [*accumulate(map(len, pieces))]
        place, at = -1, self._find(whole, 0)
        while at < len(whole):
            place = bisect_right(following, at)
            yield pieces[place]
            at = self._find(whole, following[place])
        if ends and place < len(pieces) - 1:
            yield pieces[-1]

    def _find(self, data: bytes, start: int) -> int:
        """Return where the next event may be that belongs to it; the end if nowhere."""
        if len(self._marks) > MARKS:
            return start
        places = [place for one in self._marks if (place := data.find(one, start)) >= 0]
        return min(places, default=len(data))

    def _has(self, event: Event) -> bool:
        own = event.run_id == self._run_id
        if not (own or event.terminal or self._is_below(event)):
            return False
        if event.terminal or (own and event.WhichOneof("payload") in ENDS):
            event.terminal = self.ended = True
        return True

    def _is_below(self, event: Event) -> bool:
        if event.run_id not in self._runs:
            if event.parent_run_id not in self._runs:
                return False
            self._runs.add(event.run_id)
            self._marks.append(mark(event.run_id))
        return True


def mark(run_id: str) -> bytes:
    """Return what the bytes of every event hold that names the run as its own or as the parent."""
    return Event(run_id=run_id).SerializeToString()[1:]


def encoded(events: list[Event]) -> bytes:
    """Return events as a frame; nothing if there are none."""
    return StreamRunResponse(events=events).SerializeToString()
