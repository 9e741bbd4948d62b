"""The newest frames of held runs, in memory: a reader that keeps up asks no file."""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import replace

from polos_service.store import Frame, Key, RunRecord

KEPT = 4
"""Frames of a run that stay in memory when the spool is emptied: a busy loop serves a reader some
frames late, and one that asks the file costs as much as several tokens."""


class Tails:
    """For each held run the frames that are in the spool, and the newest ones in any case.

    The loop owns it. It holds what was delivered, that is committed and answered.
    """

    def __init__(self) -> None:
        self._frames: dict[Key, list[Frame]] = {}

    def add(self, key: Key, frame: Frame) -> None:
        """Add a run's next frame."""
        frames = self._frames.get(key)
        if frames is None:
            self._frames[key] = [frame]
        else:
            frames.append(frame)

    def latest(self, key: Key) -> int:
        """Return the newest sequence; 0 if it is not in memory."""
        frames = self._frames.get(key)
        return frames[-1].last if frames else 0

    def up_to_date(self, project: str, record: RunRecord) -> RunRecord:
        """Return a record of the file with the newest sequence that is in memory."""
        newest = self.latest((project, record.run_id))
        return replace(record, latest=newest, left="") if newest > record.latest else record

    def after(self, key: Key, after: int, limit: int) -> list[Frame]:
        """Return the frames with events after the cursor, up to the one that reaches `limit`.

        There are none if the event that follows the cursor is not in memory.
        """
        frames = self._frames.get(key)
        if frames is None or frames[0].first > after + 1:
            return []
        if frames[-1].first <= after + 1:  # all that a reader lacks that keeps up
            return frames[-1:] if frames[-1].last > after else []
        found: list[Frame] = []
        size = 0
        for place in range(bisect_right(frames, after, key=last_of), len(frames)):
            found.append(frames[place])
            size += len(frames[place].data)
            if size >= limit:
                break
        return found

    def unspooled(self, key: Key) -> None:
        """Forget all but the newest frame of a run: the file's log has the others."""
        frames = self._frames.get(key)
        if frames is not None:
            del frames[:-1]

    def all_unspooled(self) -> None:
        """Forget all but the newest frames of every run: the file's log has the others."""
        for frames in self._frames.values():
            del frames[:-KEPT]

    def drop(self, key: Key) -> None:
        """Forget a run that nobody holds any more: the file's log has everything."""
        self._frames.pop(key, None)


def last_of(frame: Frame) -> int:
    """Return the sequence of a frame's last event."""
    return frame.last
