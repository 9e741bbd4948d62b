"""The claims that this replica holds: how they begin, go on, are lost, and end.

A claim has two parts. The claim frame decides who may write: only one replica gets it into
the log behind the last message. The work item decides who tries: JetStream gives it to
another replica when its holder falls silent.
"""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace

from polos_client.errors import StoreUnavailable
from polos_service.cancelling import cancel_until_done
from polos_service.errors import Fenced
from polos_service.logs import get_logger
from polos_service.store import PARKED, Claim, Command, Frame, Key
from polos_service.store.nats.feeds import Feeds
from polos_service.store.nats.frames import Head, LogEnd, Mark, Parked
from polos_service.store.nats.inbox import InboxView
from polos_service.store.nats.items import WorkItem
from polos_service.store.nats.lease import (
    Lease,
    fenced,
    held_by_former,
    held_past_queue,
    line,
    now,
    stale,
    taken,
)
from polos_service.store.nats.log import Superseded
from polos_service.store.nats.parts import Parts
from polos_service.store.nats.records import DefinitionLost, Life, Record
from polos_service.store.nats.shielded import ShieldedTasks
from polos_service.store.nats.subjects import inbox_subject, log_subject, token
from polos_service.store.wakeups import Wakeups

RENEWALS = 3
"""How many times a claim is renewed within the time after which it would be lost."""

LOOK_AGAIN = 1.0
"""Seconds after which an item is offered again while its run cannot be claimed."""

log = get_logger(__name__)


class Claims:
    """The claims of one replica."""

    def __init__(
        self,
        parts: Parts,
        *,
        feeds: Feeds,
        wakeups: Wakeups,
        tasks: ShieldedTasks,
        claim_timeout: float,
    ) -> None:
        self._log = parts.log
        self._records = parts.records
        self._inbox = parts.inbox
        self._queue = parts.queue
        self._parking = parts.parking
        self._watchers = parts.watchers
        self._feeds = feeds
        self._wakeups = wakeups
        self._tasks = tasks
        self._claim_timeout = claim_timeout
        self._writer = f"{os.uname().nodename}:{os.getpid()}"
        self._leases: dict[Key, Lease] = {}
        self._renewing: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to renew what is held."""
        self._renewing = asyncio.create_task(self._renew_all(), name="polos-renew")

    async def close(self) -> None:
        """Renew nothing more: after `claim_timeout` JetStream gives to others what is held."""
        if self._renewing is not None:
            await cancel_until_done({self._renewing})

    @property
    def past_queue(self) -> int:
        """How many runs are held whose items are still queued."""
        return sum(lease.item is None for lease in self._leases.values())

    def held(self) -> Mapping[str, int]:
        """How many runs of each project are held here, by the project's token."""
        return Counter(token(project) for project, _ in self._leases)

    @property
    def period(self) -> float:
        """Seconds between two renewals."""
        return self._claim_timeout / RENEWALS

    async def take(self, item: WorkItem) -> Claim | None:
        """Claim the run whose item this replica got; None if it cannot be claimed."""
        record = await self._records.find(item.project, item.run_id)
        if record is None:
            self._tasks.spawn(self._seek(item))
            return None
        if record.life is not Life.OPEN:
            await self._queue.done(item)
            return None
        last = await self._log.last(log_subject(item.project, item.run_id))
        if last is not None and last.head.outcome:
            await self._watchers.finish(record, last.head)
            await self._queue.done(item)
            return None
        if item.stray:
            await self._queue.move(item, record)
            return None
        if last is not None and last.head.parked_item == item.sequence:
            await self._parking.complete(record, last.head)
            return None
        return await self._take_open(item, record, last)

    async def take_run(self, project: str, run_id: str, *, force: bool) -> Claim | None:
        """Claim a run without its item, to end it; with `force`, even from its holder."""
        while True:
            record = await self._records.find(project, run_id)
            if record is None or record.life is not Life.OPEN:
                return None
            last = await self._log.last(log_subject(project, run_id))
            if last is not None and last.head.outcome:
                await self._watchers.finish(record, last.head)
                await self._queue.remove(record)
                return None
            if last is not None and last.head.held and not force:
                return None
            if last is not None and last.head.parked and await self._queue.item_of(record) is None:
                return None  # it is suspended
            claim = await self._begin(record, last, None)
            if claim is not None or not force:
                return claim  # else its holder has appended meanwhile

    def find(self, claim: Claim) -> Lease | None:
        """Return the lease of a claim; None once it was lost, released or ended."""
        lease = self._leases.get((claim.project, claim.run_id))
        return lease if lease is not None and lease.claim.epoch == claim.epoch else None

    async def append(self, claim: Claim, frame: Frame, private: bytes) -> None:
        """Append a frame, and do what follows the terminal one.

        Raises:
            Fenced: the claim was lost, or the run has ended.
            ValueError: the frame is not the next one.

        """
        lease = self.find(claim)
        if lease is None:
            raise fenced(claim)
        async with lease.appending:
            if lease.lost or lease.over:
                raise fenced(claim)
            if frame.first != lease.latest + 1 or frame.last < frame.first:
                raise ValueError(
                    f"A frame of events {frame.first} to {frame.last} "
                    f"cannot follow event {lease.latest}."
                )
            head = lease.head(
                Mark.EVENTS,
                frame.first,
                frame.last,
                size=len(frame.data),
                outcome=int(frame.outcome or 0),
            )
            key = (claim.project, claim.run_id)
            self._feeds.writing(key, head, frame)
            await self._write(lease, head, frame.data + private)
            self._feeds.written(key, head, lease.sequence)
        if frame.outcome is not None:
            await self._end(lease, head)

    async def release(self, claim: Claim, *, failed: bool = False, left: str = "") -> None:
        """Mark in the log that the run is let go, and why, then give its item back."""
        lease = self.find(claim)
        if lease is None:
            return
        mark = {"epoch": claim.epoch, **({"failed": True} if failed else {})}
        async with lease.appending:
            if not lease.lost and not lease.over:
                head = lease.head(Mark.RELEASED, lease.latest + 1, lease.latest, left=left)
                with suppress(Fenced):
                    await self._write(lease, head, line({"released": mark}))
                    lease.over = True
                    if lease.item is not None:
                        await self._queue.put_back(lease.item)
            self._let_go(lease)

    async def suspend(
        self, claim: Claim, *, wake_at: int | None, seen: int, deadline: int | None
    ) -> bool:
        """Mark in the log that the run is parked, and do what follows; see `parking`.

        Raises:
            Fenced: the claim was lost, or the run has ended.

        """
        lease = self.find(claim)
        if lease is None:
            raise fenced(claim)
        async with lease.appending:
            if lease.lost or lease.over:
                raise fenced(claim)
            await self._inbox.look(claim.project, claim.run_id, lease.inbox)
            if len(lease.inbox.commands) > seen:
                return False
            record = await self._records.set_deadline(lease.record, deadline)
            item = lease.item.sequence if lease.item else await self._queue.item_of(record)
            times = [max(1, one) for one in (wake_at, deadline) if one is not None]
            parked = Parked(item or 0, seen, min(times, default=0))
            head = lease.head(Mark.RELEASED, lease.latest + 1, lease.latest, parked=parked)
            mark = {"epoch": claim.epoch, PARKED: True}
            await self._write(lease, head, line({"released": mark}))
            lease.over = True
            self._let_go(lease)
        await self._parking.complete(record, head)
        return True

    async def commands(self, claim: Claim, seen: int) -> Sequence[Command]:
        """Wait for commands behind the first `seen`; look once a period, whatever is heard.

        Raises:
            Fenced: the claim was lost during the wait.
            RunExpired, RunNotFound: the claim is held no longer, and the run was removed.

        """
        lease = self.find(claim)
        view = InboxView() if lease is None else lease.inbox
        key = (claim.project, claim.run_id)
        while True:
            arrived = self._wakeups.event(("inbox", inbox_subject(*key)))
            if lease is not None and lease.lost:
                raise fenced(claim)
            if self.find(claim) is None:
                await self._records.get(*key)
            await self._inbox.look(*key, view)
            if len(view.commands) > seen:
                return view.commands[seen:]
            with suppress(TimeoutError):
                async with asyncio.timeout(self.period):
                    await arrived.wait()

    async def _take_open(self, item: WorkItem, record: Record, last: LogEnd | None) -> Claim | None:
        """Claim a run that has not ended, unless somebody holds it."""
        if last is not None and (self._adopts(item, last) or stale(item, last)):
            return None
        held = last is not None and await self._held_otherwise(item, last, record)
        claim = None if held else await self._begin(record, last, item)
        if claim is None:
            await self._queue.put_back(item, LOOK_AGAIN)
        return claim

    async def _held_otherwise(self, item: WorkItem, last: LogEnd, record: Record) -> bool:
        """Whether somebody holds the run without its item, or with that of a former version."""
        if held_by_former(item, last):
            return await self._queue.queued_by_former(record)
        return held_past_queue(last, self._claim_timeout)

    async def _seek(self, item: WorkItem) -> None:
        """Remove the item of a run that is not found, unless it is found after all."""
        if await self._records.sought(item.project, item.run_id) is None:
            await self._queue.done(item)
        else:
            await self._queue.put_back(item)

    async def _withdraw(self, lease: Lease) -> None:
        """Remove the claim that was put behind a removed log: its removal was too early for it."""
        record = await self._records.sought(lease.claim.project, lease.claim.run_id)
        if record is None or record.life not in (Life.OPEN, Life.ENDED):
            await self._log.remove(lease.subject)

    async def _begin(
        self, record: Record, last: LogEnd | None, item: WorkItem | None
    ) -> Claim | None:
        key = (record.project, record.run_id)
        view = InboxView()
        definition, _ = await asyncio.gather(
            self._definition(record, ending=item is None), self._inbox.look(*key, view)
        )
        lease = taken(record, last, item, definition, view)
        claim = lease.claim
        mark = {"claim": {"epoch": claim.epoch, "writer": self._writer}}
        left = "" if last is None else last.head.left
        head = lease.head(Mark.CLAIMED, claim.latest + 1, claim.latest, left=left)
        try:
            lease.sequence = await self._log.append(lease.subject, head, line(mark), lease.sequence)
        except Superseded:
            return None
        # Behind a log that was removed since the look at it, a first message is in place, too.
        if last is None and not await self._records.open(*key):
            self._tasks.spawn(self._withdraw(lease))
            return None
        if last is not None and last.head.parked:
            self._tasks.spawn(self._parking.forget(*key, last))
        lease.proven = now()
        former = self._leases.get(key)
        if former is not None:  # lost to another replica, which has lost it by now
            self._lose(former)
        self._leases[key] = lease
        return claim

    async def _definition(self, record: Record, *, ending: bool) -> bytes:
        """Return the definition; empty if it is missing and the run is only taken to end it."""
        try:
            return await self._records.definition(record)
        except DefinitionLost as error:
            if not ending:
                raise
            log.warning("definition_lost", run_id=record.run_id, error=str(error))
            return b""

    async def _write(self, lease: Lease, head: Head, payload: bytes) -> None:
        """Append the claim's next message, and remember the log's new end."""
        try:
            lease.sequence = await self._log.append(lease.subject, head, payload, lease.sequence)
        except Superseded as superseded:
            last = superseded.last
            if last is None or last.head.claim != lease.name or not last.head.held:
                self._lose(lease)
                raise fenced(lease.claim) from None
            # An append that was given up was stored after all.
            lease.sequence, lease.latest = last.sequence, last.head.last
            if head.mark is not Mark.RELEASED:
                raise fenced(lease.claim) from None
            head = replace(head, first=lease.latest + 1, last=lease.latest)
            await self._write(lease, head, payload)
            return
        lease.latest = head.last
        lease.proven = now()

    async def _end(self, lease: Lease, head: Head) -> None:
        """Update record and queue after the end; if that fails, whoever gets the item does it."""
        lease.over = True
        self._let_go(lease)
        try:
            await self._watchers.finish(lease.record, head)
            if lease.item is not None:
                await self._queue.done(lease.item)
            else:
                await self._queue.remove(lease.record)
        except StoreUnavailable as error:
            log.warning("record_left_behind", run_id=lease.claim.run_id, error=str(error))

    def _adopts(self, item: WorkItem, last: LogEnd) -> bool:
        """Take over the item of a run that this replica holds already."""
        lease = self._leases.get((item.project, item.run_id))
        if lease is None or lease.name != last.head.claim or not last.head.held:
            return False
        lease.item = item
        return True

    def _lose(self, lease: Lease) -> None:
        lease.lost = True
        self._let_go(lease)
        inbox = inbox_subject(lease.claim.project, lease.claim.run_id)
        self._wakeups.notify(("inbox", inbox))

    def _let_go(self, lease: Lease) -> None:
        key = (lease.claim.project, lease.claim.run_id)
        if self._leases.get(key) is lease:
            del self._leases[key]
            self._queue.look()

    async def _renew_all(self) -> None:
        while True:
            await asyncio.sleep(self.period)
            renewals = map(self._renew, list(self._leases.values()))
            for outcome in await asyncio.gather(*renewals, return_exceptions=True):
                if isinstance(outcome, Exception):
                    log.error("renewal_failed", exc_info=outcome)

    async def _renew(self, lease: Lease) -> None:
        """Tell JetStream that the run is being worked on, unless the log shows another claim."""
        try:
            if now() - lease.proven > self.period / 2:
                last = await self._log.last(lease.subject)
                if last is None or last.head.claim != lease.name:
                    self._lose(lease)
                    return
                lease.proven = now()
            if lease.item is not None and not lease.over:
                await self._queue.keep(lease.item)
        except StoreUnavailable as error:
            log.warning("renewal_failed", run_id=lease.claim.run_id, error=str(error))
