"""Mends runs that a crash left half-way: open in their records, and not in the queue.

A record moves to the end of its stream whenever it is written. So a replica looks at each
record once, in that order, a while after it was written.
"""

from __future__ import annotations

import time

from polos_client.errors import StoreUnavailable
from polos_service.logs import get_logger
from polos_service.store.nats.claims import Claims
from polos_service.store.nats.link import Link
from polos_service.store.nats.log import Log
from polos_service.store.nats.record import Life, Record
from polos_service.store.nats.records import Records
from polos_service.store.nats.stored import seconds_of
from polos_service.store.nats.subjects import RUNS, log_subject
from polos_service.store.nats.work import Work

SCAN = 1000
"""Records that are looked at in one go."""

SETTLED = 60.0
"""Seconds for which a start, or an end, is left to the replica that is at it."""

log = get_logger(__name__)


class Sweep:
    """What one replica mends."""

    def __init__(self, link: Link, log: Log, records: Records, work: Work, claims: Claims) -> None:
        self._link = link
        self._log = log
        self._records = records
        self._work = work
        self._claims = claims
        self._passed = 0

    async def go_on(self) -> None:
        """Look at the next records, and mend what is half-way."""
        body = {"next_by_subj": "$KV.POLOS_RUNS.>", "batch": SCAN}
        for message in await self._link.batch(RUNS, {"seq": self._passed + 1, **body}):
            if time.time() - seconds_of(message.time) < SETTLED:
                return
            record = self._records.read(message)
            if record is not None and record.life is Life.OPEN:
                try:
                    await self._mend(record)
                except StoreUnavailable as error:
                    log.warning("run_not_mended", run_id=record.run_id, error=str(error))
            self._passed = message.sequence

    async def _mend(self, record: Record) -> None:
        if await self._work.queued(record):
            return  # whoever gets the item goes on with the run
        if not await self._records.open(record.project, record.run_id):
            return  # it has ended meanwhile
        last = await self._log.last(log_subject(record.project, record.run_id))
        if last is not None and last.head.outcome:
            await self._claims.finish(record, last.head)
        else:
            await self._work.put(record)
        log.info("run_mended", run_id=record.run_id)
