"""Puts together what stands in the events of model calls: long texts, and long arguments."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from io import StringIO

from polos.v1.event_pb2 import Event, LongArguments
from polos_service.runs.said import size_of

Place = tuple[str, int]
"""A model step, and which call of its answer; TEXT is its text."""

TEXT = -1


class Parts:
    """Collects what a root run's log says in parts; of attempts that were retried, nothing."""

    def __init__(self, run_id: str, latest: int, wanted: Collection[Place], room: int) -> None:
        """Collect from the events up to `latest`.

        Args:
            run_id: the root run.
            latest: the last event that counts.
            wanted: what is to be put together.
            room: bytes of arguments that are kept at most; those that exceed it are left out.

        """
        self._run_id = run_id
        self._latest = latest
        self._found = {place: StringIO() for place in wanted}
        self._sizes = dict.fromkeys(wanted, 0)
        self._room = room
        self._marks = {step_key.encode() for step_key, _ in wanted}

    def skips(self, data: bytes) -> bool:
        """Return whether encoded events have nothing that is wanted."""
        return not any(mark in data for mark in self._marks)

    def add(self, events: Sequence[Event]) -> None:
        """Take the next events."""
        for event in events:
            if event.run_id != self._run_id or event.sequence > self._latest:
                continue
            match event.WhichOneof("payload"):
                case "text_delta":
                    place = (event.text_delta.step_key, TEXT)
                    if place in self._found:
                        self._found[place].write(event.text_delta.content)
                case "tool_call_delta":
                    piece = event.tool_call_delta
                    self._argument((piece.step_key, piece.call), piece.content)
                case "step_retry":
                    self._void(event.step_retry.step_key)

    def text(self, step_key: str) -> str:
        """Return the text of a model step."""
        return self._found[step_key, TEXT].getvalue()

    def arguments(self, where: LongArguments) -> str | None:
        """Return the arguments that stand there; None if there was no room for them."""
        found = self._found.get(place_of(where))
        return None if found is None else found.getvalue()

    def _argument(self, place: Place, piece: str) -> None:
        if (found := self._found.get(place)) is None:
            return
        size = size_of(piece)
        if size <= self._room:
            found.write(piece)
            self._sizes[place] += size
            self._room -= size
        else:
            self._room += self._sizes.pop(place)
            del self._found[place]

    def _void(self, step_key: str) -> None:
        for place in [one for one in self._found if one[0] == step_key]:
            self._found[place] = StringIO()
            self._room += self._sizes[place]
            self._sizes[place] = 0


def place_of(where: LongArguments) -> Place:
    """Return the place that a call names."""
    return where.step_key, where.call
