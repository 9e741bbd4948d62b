"""Finds open runs that should have ended: cancelled ones, and those past their deadline.

The queue holds the deadlines of open runs, and the inboxes hold the cancellations. A replica
follows both streams and remembers when to look at which run. A cancellation is taken out of
its inbox when its run has ended, so that a replica that starts reads those of open runs only.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from polos_service.store import Key, Overdue
from polos_service.store.nats.agenda import Agenda
from polos_service.store.nats.frames import LogEnd
from polos_service.store.nats.inbox import cancelled_run
from polos_service.store.nats.items import Queued
from polos_service.store.nats.messages import SECOND, StoredMessage, seconds_of
from polos_service.store.nats.parts import Parts
from polos_service.store.nats.records import Life, Record
from polos_service.store.nats.subjects import (
    COMMANDS,
    EVERY_CANCEL,
    EVERY_ITEM,
    WORK,
    log_subject,
    run_subject,
)

PIECE = 200
"""Runs that are looked at together."""

LOOK_AGAIN = 5 * SECOND
"""Nanoseconds after which a run that should have ended is looked at again."""


class Due(NamedTuple):
    """A run to look at.

    Attributes:
        since: when it should have ended, in nanoseconds since the epoch.
        cancel: the bucket's sequence for the cancellation; 0 if this is about the deadline.

    """

    since: int
    project: str
    run_id: str
    cancel: int = 0

    @property
    def log(self) -> str:
        """The subject of the run's log."""
        return log_subject(self.project, self.run_id)


class DueRuns:
    """The open runs that are to end, of every replica, as one replica finds them."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._deadlines = Agenda(parts.jetstream, WORK, EVERY_ITEM, self._deadline_of)
        self._cancels = Agenda(parts.jetstream, COMMANDS, EVERY_CANCEL, self._cancel_of)

    async def overdue(self, now: int, stuck: int) -> Sequence[Overdue]:
        """Return some runs that should have ended: queued, or held since before `stuck`."""
        while await self._deadlines.read():
            pass
        await self._cancels.read()
        found: set[Overdue] = set()
        while len(found) < PIECE and (due := self._next(now)):
            found |= await self._look(due, now, stuck)
        return list(found)

    def _next(self, now: int) -> list[Due]:
        """Take out the next runs that are to be looked at by now."""
        due = self._deadlines.due(now, PIECE)
        return [*due, *self._cancels.due(now, PIECE - len(due))]

    async def _look(self, due: list[Due], now: int, stuck: int) -> set[Overdue]:
        """Look at these runs, return those that are overdue, and keep the open ones for later.

        One that is suspended is woken first: it may have been cancelled by a replica that died.
        """
        left = due
        try:
            lasts = await self._parts.log.lasts([*{one.log for one in due}])
            left = [one for one in due if await self._open(one, lasts.get(one.log))]
            records = await self._records(left)
            left = [one for one in left if one.cancel or due_still(one, records)]
            for one in left:
                last, record = lasts.get(one.log), records.get((one.project, one.run_id))
                if last is not None and record is not None and record.life is Life.OPEN:
                    await self._parts.parking.wake(record, last.head)
        finally:
            for one in left:
                (self._cancels if one.cancel else self._deadlines).add(now + LOOK_AGAIN, one)
        holds = {one: (last := lasts.get(one.log)) is not None and last.head.held for one in left}
        return {
            Overdue(project=one.project, run_id=one.run_id, held=held)
            for one, held in holds.items()
            if not held or one.since <= stuck
        }

    async def _records(self, due: Sequence[Due]) -> dict[Key, Record]:
        subjects = {run_subject(one.project, one.run_id) for one in due}
        found = await self._parts.records.many([*subjects])
        return {(one.project, one.run_id): one for one in found}

    async def _open(self, one: Due, last: LogEnd | None) -> bool:
        """Return whether a run is open; if it has ended, remove its cancellation."""
        if last is None:
            return await self._parts.records.open(one.project, one.run_id)
        if last.head.outcome and one.cancel:
            await self._parts.inbox.drop_cancel(one.project, one.run_id, one.cancel)
        return not last.head.outcome

    async def _deadline_of(self, message: StoredMessage) -> tuple[int, Due] | None:
        """Return when to look at a queued run; None if it has no deadline.

        What is not ours in the queue is removed: it counts as a run that waits.
        """
        queued = self._parts.jetstream.foreign.read(Queued.of, message)
        if queued is None:
            await self._parts.queue.discard(message.sequence)
            return None
        self._parts.queue.find(message.subject)
        if queued.deadline is None:
            return None
        return queued.deadline, Due(queued.deadline, queued.project, queued.run_id)

    async def _cancel_of(self, message: StoredMessage) -> tuple[int, Due] | None:
        """Return that a cancelled run is looked at at once, whatever the server's clock says."""
        run = self._parts.jetstream.foreign.read(cancelled_run, message)
        if run is None:
            return None
        return 0, Due(round(seconds_of(message.time) * SECOND), *run, message.sequence)


def due_still(one: Due, records: Mapping[Key, Record]) -> bool:
    """Return whether a run has the same deadline still: a park may have moved it."""
    record = records.get((one.project, one.run_id))
    return record is None or record.deadline == one.since
