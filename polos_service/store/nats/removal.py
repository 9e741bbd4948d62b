"""Removes runs: a tombstone first, then log, definition and inbox, and the record last."""

from __future__ import annotations

import time
from dataclasses import replace

from polos_service.store.nats.link import Conflict, Link
from polos_service.store.nats.log import Log
from polos_service.store.nats.record import Life, Record
from polos_service.store.nats.records import Records
from polos_service.store.nats.stored import Stored, seconds_of
from polos_service.store.nats.subjects import RUNS, log_subject
from polos_service.store.nats.work import Work

SCAN = 1000
"""Records that one request of a scan brings."""

SECOND = 1_000_000_000
"""Nanoseconds of a second."""

UNDER_WAY = 60.0
"""Seconds for which a tombstone is left to the replica that put it there."""


class Removal:
    """What one replica removes. Any other goes on where it stops."""

    def __init__(self, link: Link, log: Log, records: Records, work: Work) -> None:
        self._link = link
        self._log = log
        self._records = records
        self._work = work
        self._passed = 0

    async def remove(self, record: Record, life: Life) -> None:
        """Remove an ended run; nothing happens if another replica is doing it."""
        try:
            tomb = await self._records.write(replace(record, life=life))
        except Conflict:
            return
        await self.go_on(tomb)

    async def expire(self, before: int) -> bool:
        """Remove one run that ended before a time; False if there is none.

        A record moves to the end of its stream whenever it is written. So those of runs
        that have ended lie there in the order of their end, and what was passed once is
        a tombstone, or comes again.
        """
        while page := await self._page():
            for message in page:
                record = self._link.foreign.read(Record.of, message)
                if record is not None and record.life is Life.ENDED:
                    # A clock that was wrong is not to keep everything behind it for ever.
                    written = round(seconds_of(message.time) * SECOND)
                    if min(record.finish_time or 0, written) >= before:
                        return False
                    await self.remove(record, Life.EXPIRING)
                    return True
                if record is not None and record.life in (Life.DELETING, Life.EXPIRING):
                    if time.time() - seconds_of(message.time) < UNDER_WAY:
                        return False
                    await self.go_on(record)
                    return True
                self._passed = message.sequence
        return False

    async def go_on(self, tomb: Record) -> None:
        """Remove what a tombstone's run still has."""
        await self._log.remove(log_subject(tomb.project, tomb.run_id))
        await self._work.remove(tomb)
        await self._records.strip(tomb)
        if tomb.life is Life.DELETING:
            await self._records.drop(tomb)
            return
        try:
            await self._records.write(replace(tomb, life=Life.EXPIRED, pieces=0))
        except Conflict:
            return  # another replica has finished it

    async def _page(self) -> list[Stored]:
        return await self._link.batch(
            RUNS, {"seq": self._passed + 1, "next_by_subj": "$KV.POLOS_RUNS.>", "batch": SCAN}
        )
