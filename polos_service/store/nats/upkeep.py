"""Upkeep of the store: removal of runs, and mending of those that a crash left half-way.

A record moves to the end of its stream whenever it is written. So a replica passes through the
records in the order of their last writing, and looks at each once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace

from polos_client.errors import StoreUnavailable
from polos_service.logs import get_logger
from polos_service.store import Key
from polos_service.store.nats.jetstream import Conflict
from polos_service.store.nats.messages import SECOND, seconds_of
from polos_service.store.nats.parts import Parts
from polos_service.store.nats.records import Life, Record
from polos_service.store.nats.subjects import (
    ALARMS,
    COMMANDS,
    EVERY_RUN,
    RUNS,
    alarm_subject,
    command_subjects,
    inbox_subject,
    log_subject,
)

UNDER_WAY = 60.0
"""Seconds for which a start, an end or a removal is left to the replica that is at it."""

PIECE = 200
"""Records that are looked at together."""

log = get_logger(__name__)


class Removal:
    """What one replica removes. Any other goes on where it stops."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._passed = 0

    async def remove(self, record: Record, life: Life) -> None:
        """Remove an ended run; nothing happens if another replica is doing it."""
        try:
            tomb = await self._parts.records.write(replace(record, life=life, input_preview=""))
        except Conflict:
            return
        await self.go_on(tomb)

    async def expire(self, before: int) -> bool:
        """Remove one run that ended before a time; False if there is none.

        A record moves to the end of its stream whenever it is written. So those of runs
        that have ended lie there in the order of their end, and what was passed once is
        a tombstone, or comes again.
        """
        while page := await self._parts.jetstream.page(RUNS, EVERY_RUN, self._passed + 1):
            for message in page:
                record = self._parts.jetstream.foreign.read(Record.of, message)
                if record is not None and record.life is Life.ENDED:
                    # A clock that was wrong is not to keep everything behind it for ever.
                    written = round(seconds_of(message.time) * SECOND)
                    if min(record.finish_time or 0, written) >= before:
                        return False
                    await self.remove(record, Life.EXPIRING)
                    return True
                if record is not None and record.life in (Life.DELETING, Life.EXPIRING):
                    if message.age < UNDER_WAY:
                        return False
                    await self.go_on(record)
                    return True
                self._passed = message.sequence
        return False

    async def go_on(self, tomb: Record) -> None:
        """Remove what a tombstone's run still has."""
        await self._parts.log.remove(log_subject(tomb.project, tomb.run_id))
        await self._parts.queue.remove(tomb)
        await self._parts.records.strip(tomb)
        await asyncio.gather(
            self._parts.inbox.remove(tomb.project, tomb.run_id),
            self._parts.parking.remove(tomb.project, tomb.run_id),
            self._parts.waits.remove(tomb.project, tomb.run_id),
            self._parts.watchers.remove(tomb.project, tomb.run_id),
        )
        if tomb.life is Life.DELETING:
            await self._parts.records.drop(tomb)
            return
        try:
            await self._parts.records.write(replace(tomb, life=Life.EXPIRED, pieces=0))
        except Conflict:
            return  # another replica has finished it


class Sweep:
    """What one replica mends."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._passed = 0

    async def go_on(self) -> None:
        """Look at the next records, and mend what is half-way."""
        page = await self._parts.jetstream.page(RUNS, EVERY_RUN, self._passed + 1)
        for start in range(0, len(page), PIECE):
            piece = [one for one in page[start : start + PIECE] if one.age >= UNDER_WAY]
            read = (self._parts.jetstream.foreign.read(Record.of, message) for message in piece)
            left = [one for one in read if one is not None and one.life is Life.OPEN]
            parked = await self._parked(left)
            for record in left:
                if (record.project, record.run_id) in parked:
                    continue
                try:
                    await self._mend(record)
                except StoreUnavailable as error:
                    log.warning("run_not_mended", run_id=record.run_id, error=str(error))
            self._passed = piece[-1].sequence if piece else self._passed
            if len(piece) < len(page[start : start + PIECE]):
                return

    async def _parked(self, records: Sequence[Record]) -> set[Key]:
        """Return the runs that are parked with all that belongs to it.

        It is asked for all of them at once: there may be very many when a replica starts. Those
        with commands in their inboxes are left to `_mend`, which knows which were seen.
        """
        by_log = {log_subject(one.project, one.run_id): one for one in records}
        items = await self._parts.queue.items_of(records)
        lasts = await self._parts.log.lasts([*by_log])
        heads = {
            (one.project, one.run_id): last.head
            for subject, last in lasts.items()
            if last.head.parked is not None and not last.head.parked.seen
            for one in (by_log[subject],)
            if (one.project, one.run_id) not in items
        }
        alarms = {
            alarm_subject(*key, head.epoch): key
            for key, head in heads.items()
            if head.parked is not None and head.parked.wake_at
        }
        inboxes = {inbox_subject(*key): key for key in heads}
        asked = [*inboxes, *(command_subjects(*key) for key in heads)]
        lasts_of = self._parts.jetstream.lasts
        lacking = set(alarms.values()) - {
            alarms[one.subject] async for one in lasts_of(ALARMS, [*alarms])
        }
        told = {
            inboxes[".".join(one.subject.split(".")[:4])] async for one in lasts_of(COMMANDS, asked)
        }
        return heads.keys() - lacking - told

    async def _mend(self, record: Record) -> None:
        if await self._parts.queue.item_of(record) is not None:
            return  # whoever gets the item goes on with the run
        if not await self._parts.records.open(record.project, record.run_id):
            return  # it has ended meanwhile
        last = await self._parts.log.last(log_subject(record.project, record.run_id))
        if last is not None and last.head.outcome:
            await self._parts.watchers.finish(record, last.head)
        elif last is not None and last.head.parked:
            await self._parts.parking.complete(record, last.head)
            return
        else:
            await self._parts.queue.put(record)
        log.info("run_mended", run_id=record.run_id)
