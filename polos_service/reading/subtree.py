"""One child out of the log of its root: its events, and those of the runs below it."""

from __future__ import annotations

import re

from polos.v1.event_pb2 import Event
from polos.v1.run_service_pb2 import StreamRunResponse
from polos_client.wire import CHILD_MARK
from polos_service.runs.frame import decode
from polos_service.runs.journal import ENDS

NUMBER = re.compile(r"[1-9][0-9]{0,17}")
"""The number of a child: a sequence. No log has as many events as the largest says."""

MARKS = 8
"""Runs at most whose ids are looked for in encoded events. To decode those is quicker than to look
for more."""


def number_of(run_id: str) -> int | None:
    """Return the sequence with which a child, `ROOT:N`, has begun; None if it is not such an id."""
    number = run_id.partition(CHILD_MARK)[2]
    return int(number) if NUMBER.fullmatch(number) else None


def begin_of(run_id: str) -> int:
    """Return the cursor behind which the log begins to tell of a run: 0 of a root run."""
    return (number_of(run_id) or 1) - 1


class Subtree:
    """Picks the events of a child and of the runs below it out of the log, shown from its begin.

    Attributes:
        ended: True once the event that ends the child was shown, or the root's.

    """

    def __init__(self, run_id: str) -> None:
        self.ended = False
        self._run_id = run_id
        self._runs = {run_id}
        self._marks = [mark(run_id)]

    def pick(self, data: bytes, *, last: bool) -> list[Event]:
        """Return the events among the next ones that belong to it; `last` says they end the log.

        The event that ends it is terminal, and nothing follows.
        """
        if self.ended or not (last or self._has(data)):
            return []
        picked: list[Event] = []
        for event in decode(data):
            own = event.run_id == self._run_id
            if not (own or event.terminal or self._is_below(event)):
                continue
            picked.append(event)
            if event.terminal or (own and event.WhichOneof("payload") in ENDS):
                event.terminal = self.ended = True
                break
        return picked

    def _has(self, data: bytes) -> bool:
        return len(self._marks) > MARKS or any(one in data for one in self._marks)

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
