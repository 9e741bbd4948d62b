"""One child out of the log of its root: its events, and those of the runs below it."""

from __future__ import annotations

import re
from collections.abc import Iterator

from polos.v1.event_pb2 import Event
from polos.v1.run_service_pb2 import StreamRunResponse
from polos_client.wire import CHILD_MARK
from polos_service.runs.frame import after_event, decode
from polos_service.runs.journal import ENDS
from polos_service.store import Slice

NUMBER = re.compile(r"[1-9][0-9]{0,17}")
"""The number of a child: a sequence. No log has as many events as the largest says."""

MARKS = 8
"""Runs at most whose ids are looked for in encoded events. To decode all of them is quicker than to
look for more."""


def number_of(run_id: str) -> int | None:
    """Return the sequence with which a child, `ROOT:N`, has begun; None if it is not such an id."""
    number = run_id.partition(CHILD_MARK)[2]
    return int(number) if NUMBER.fullmatch(number) else None


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
                (event,) = decode(piece)
                if event.sequence <= self.after or not self._has(event):
                    continue
                self.after = event.sequence
                picked.append(event)
                room -= len(piece)
                if self.ended or room <= 0:
                    return picked
            self.after = frame.last
        return picked

    def _pieces(self, data: bytes, *, ends: bool) -> Iterator[bytes]:
        """Yield the encoded events of a frame that may belong to it; `ends`: its last, too."""
        at, following = 0, self._find(data, 0)
        while at < len(data) and (ends or following < len(data)):
            end = after_event(data, at)
            if following < end or (ends and end == len(data)):
                yield data[at:end]
                following = self._find(data, end)
            at = end

    def _find(self, data: bytes, start: int) -> int:
        """Return where the next event may be that belongs to it."""
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
