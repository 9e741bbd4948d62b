"""The claims that this replica holds: how they begin, go on, are lost, and end.

Two things make a claim. The claim frame, which only one of any number of replicas gets
into the log behind the last message, decides who may write. The work item, which
JetStream gives to another replica when its holder falls silent, decides who tries.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from time import time_ns

from polos_client.errors import StoreUnavailable
from polos_service.errors import Fenced
from polos_service.logs import get_logger
from polos_service.store import Claim, Command, Frame
from polos_service.store.nats.background import Background
from polos_service.store.nats.ends import Last
from polos_service.store.nats.head import Head, Mark
from polos_service.store.nats.held import Held, fenced, held_past_queue, line, now, stale, taken
from polos_service.store.nats.link import Conflict
from polos_service.store.nats.log import Log, Superseded
from polos_service.store.nats.record import Life, Record
from polos_service.store.nats.records import DefinitionLost, Records
from polos_service.store.nats.subjects import log_subject
from polos_service.store.nats.tails import Key, Tails
from polos_service.store.nats.work import Item, Work
from polos_service.store.wakeups import Wakeups

RENEWALS = 3
"""How often a claim is renewed in the time after which it would be lost."""

LOOK_AGAIN = 1.0
"""Seconds after which an item is offered again whose run is held without it."""

log = get_logger(__name__)


class Claims:
    """What one replica holds."""

    def __init__(
        self,
        *,
        log: Log,
        records: Records,
        work: Work,
        tails: Tails,
        signals: Wakeups,
        background: Background,
        claim_timeout: float,
    ) -> None:
        self._log = log
        self._records = records
        self._work = work
        self._tails = tails
        self._signals = signals
        self._background = background
        self._claim_timeout = claim_timeout
        self._writer = f"{os.uname().nodename}:{os.getpid()}"
        self._held: dict[Key, Held] = {}
        self._renewing: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Renew what is held from now on."""
        self._renewing = asyncio.create_task(self._renew_all(), name="polos-renew")

    async def close(self) -> None:
        """Let JetStream give to others, after a while, what is held."""
        if self._renewing is not None:
            self._renewing.cancel()
            await asyncio.wait({self._renewing})

    @property
    def past_queue(self) -> int:
        """How many runs are held whose items are still in the queue."""
        return sum(held.item is None for held in self._held.values())

    @property
    def period(self) -> float:
        """Seconds between two renewals."""
        return self._claim_timeout / RENEWALS

    async def take(self, item: Item) -> Claim | None:
        """Claim the run whose item was given to this replica; None if it is not to be had."""
        record = await self._records.find(item.project, item.run_id)
        if record is None:
            self._background.spawn(self._seek(item))
            return None
        if record.life is not Life.OPEN:
            await self._work.done(item)
            return None
        last = await self._log.last(log_subject(item.project, item.run_id))
        if last is not None and last.head.outcome:
            await self.finish(record, last.head)
            await self._work.done(item)
            return None
        if last is not None and (self._adopts(item, last) or stale(item, last)):
            return None
        if last is not None and held_past_queue(last, self._claim_timeout):
            await self._work.put_back(item, LOOK_AGAIN)
            return None
        claim = await self._begin(record, last, item)
        if claim is None:
            await self._work.put_back(item, LOOK_AGAIN)
        return claim

    async def take_run(self, project: str, run_id: str, *, force: bool) -> Claim | None:
        """Claim a run past the queue, if nobody holds it, or with `force` from whoever does."""
        while True:
            record = await self._records.find(project, run_id)
            if record is None or record.life is not Life.OPEN:
                return None
            last = await self._log.last(log_subject(project, run_id))
            if last is not None and last.head.outcome:
                await self.finish(record, last.head)
                await self._work.remove(record)
                return None
            if last is not None and last.head.held and not force:
                return None
            claim = await self._begin(record, last, None, force=force)
            if claim is not None or not force:
                return claim  # else its holder has appended meanwhile

    def find(self, claim: Claim) -> Held | None:
        """Return what is known of a claim, if it was not let go."""
        held = self._held.get((claim.project, claim.run_id))
        return held if held is not None and held.claim.epoch == claim.epoch else None

    async def append(self, claim: Claim, frame: Frame, private: bytes) -> None:
        """Append a frame, and do what follows the terminal one.

        Raises:
            Fenced: the claim was lost, or the run has ended.
            ValueError: the frame is not the next one.

        """
        held = self.find(claim)
        if held is None:
            raise fenced(claim)
        async with held.appending:
            if held.lost or held.over:
                raise fenced(claim)
            if frame.first != held.latest + 1 or frame.last < frame.first:
                raise ValueError(
                    f"A frame of events {frame.first} to {frame.last} "
                    f"cannot follow event {held.latest}."
                )
            head = held.head(
                Mark.EVENTS,
                frame.first,
                frame.last,
                size=len(frame.data),
                outcome=int(frame.outcome or 0),
            )
            key = (claim.project, claim.run_id)
            self._tails.writing(key, head, frame)
            await self._write(held, head, frame.data + private)
            self._tails.written(key, head, held.sequence)
        if frame.outcome is not None:
            await self._end(held, head)

    async def release(self, claim: Claim, *, failed: bool = False) -> None:
        """Mark in the log that the run is let go, and why, then give its item back."""
        mark = {"epoch": claim.epoch, **({"failed": True} if failed else {})}
        held = self.find(claim)
        if held is None:
            return
        async with held.appending:
            if not held.lost and not held.over:
                head = held.head(Mark.RELEASED, held.latest + 1, held.latest)
                with suppress(Fenced):
                    await self._write(held, head, line({"released": mark}))
                    held.over = True
                    if held.item is not None:
                        await self._work.put_back(held.item)
            self._let_go(held)

    async def commands(self, claim: Claim, seen: int) -> Sequence[Command]:
        """Wait for commands behind the first `seen`; look at each renewal, whatever is heard.

        Raises:
            Fenced: the claim was lost.

        """
        held = self.find(claim)
        while True:
            arrived = self._signals.event(("inbox", claim.project, claim.run_id))
            if held is not None and held.lost:
                raise fenced(claim)
            if self.find(claim) is None:
                await self._records.get(claim.project, claim.run_id)
            inbox = await self._records.commands(claim.project, claim.run_id)
            if len(inbox) > seen:
                return inbox[seen:]
            with suppress(TimeoutError):
                await asyncio.wait_for(arrived.wait(), self.period)

    async def _seek(self, item: Item) -> None:
        """Remove the item of a run that is not found, unless it is found after all."""
        if await self._records.sought(item.project, item.run_id) is None:
            await self._work.done(item)
        else:
            await self._work.put_back(item)

    async def _begin(
        self, record: Record, last: Last | None, item: Item | None, *, force: bool = False
    ) -> Claim | None:
        key = (record.project, record.run_id)
        definition, inbox = await asyncio.gather(
            self._definition(record, force=force), self._records.commands(*key)
        )
        held = taken(record, last, item, definition, inbox)
        claim = held.claim
        mark = {"claim": {"epoch": claim.epoch, "writer": self._writer}}
        head = held.head(Mark.CLAIMED, claim.latest + 1, claim.latest)
        try:
            held.sequence = await self._log.append(held.subject, head, line(mark), held.sequence)
        except Superseded:
            return None
        # Behind a log that was removed since the look at it, a first message is in place, too.
        if last is None and not await self._records.open(*key):
            return None
        held.proven = now()
        former = self._held.get(key)
        if former is not None:  # lost to another replica, which has lost it by now
            self._lose(former)
        self._held[key] = held
        return claim

    async def _definition(self, record: Record, *, force: bool) -> bytes:
        """Return the definition; empty, if it is lacking and the run is to end anyway."""
        try:
            return await self._records.definition(record)
        except DefinitionLost as error:
            if not force:
                raise
            log.warning("definition_lost", run_id=record.run_id, error=str(error))
            return b""

    async def _write(self, held: Held, head: Head, payload: bytes) -> None:
        """Append the claim's next message, and note what the log's last one is then."""
        try:
            held.sequence = await self._log.append(held.subject, head, payload, held.sequence)
        except Superseded as superseded:
            last = superseded.last
            if last is None or last.head.claim != held.name or not last.head.held:
                self._lose(held)
                raise fenced(held.claim) from None
            # An append that was given up was stored after all.
            held.sequence, held.latest = last.sequence, last.head.last
            if head.mark is not Mark.RELEASED:
                raise fenced(held.claim) from None
            head = replace(head, first=held.latest + 1, last=held.latest)
            await self._write(held, head, payload)
            return
        held.latest = head.last
        held.proven = now()

    async def _end(self, held: Held, head: Head) -> None:
        """Bring record and queue in line with the log; who gets the item mends what fails."""
        held.over = True
        self._let_go(held)
        try:
            await self.finish(held.record, head)
            if held.item is not None:
                await self._work.done(held.item)
            else:
                await self._work.remove(held.record)
        except StoreUnavailable as error:
            log.warning("record_left_behind", run_id=held.claim.run_id, error=str(error))

    async def finish(self, record: Record, head: Head) -> Record:
        """Tell in the record of an open run what its log says: that it has ended."""
        ended = replace(
            record,
            life=Life.ENDED,
            outcome=head.outcome,
            latest=head.last,
            start_time=head.start,
            finish_time=time_ns(),
        )
        try:
            return await self._records.write(ended)
        except Conflict as conflict:
            return self._records.read(conflict.last) or ended

    def _adopts(self, item: Item, last: Last) -> bool:
        """Take over the item of a run that this replica holds already."""
        held = self._held.get((item.project, item.run_id))
        if held is None or held.name != last.head.claim or not last.head.held:
            return False
        held.item = item
        return True

    def _lose(self, held: Held) -> None:
        held.lost = True
        self._let_go(held)
        self._signals.notify(("inbox", held.claim.project, held.claim.run_id))

    def _let_go(self, held: Held) -> None:
        key = (held.claim.project, held.claim.run_id)
        if self._held.get(key) is held:
            del self._held[key]

    async def _renew_all(self) -> None:
        while True:
            await asyncio.sleep(self.period)
            held = list(self._held.values())
            for outcome in await asyncio.gather(*map(self._renew, held), return_exceptions=True):
                if isinstance(outcome, Exception):
                    log.error("renewal_failed", exc_info=outcome)

    async def _renew(self, held: Held) -> None:
        """Tell JetStream that the run is worked on, unless the log tells that it is not ours."""
        try:
            if now() - held.proven > self.period / 2:
                last = await self._log.last(held.subject)
                if last is None or last.head.claim != held.name:
                    self._lose(held)
                    return
                held.proven = now()
            if held.item is not None and not held.over:
                await self._work.keep(held.item)
        except StoreUnavailable as error:
            log.warning("renewal_failed", run_id=held.claim.run_id, error=str(error))
