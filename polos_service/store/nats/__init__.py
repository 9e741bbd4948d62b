"""Runs in NATS JetStream, for any number of equal replicas on many machines.

A stream of all logs, with a subject for each run, is the truth. A stream of work items
says which runs have not ended, and hands each to one replica. Buckets hold the rest.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from dataclasses import replace

from nats.aio.msg import Msg

from polos_client.errors import StoreUnavailable, TooManyRuns
from polos_service.store import (
    MAX_QUEUED,
    Claim,
    Command,
    Entry,
    Frame,
    NewRun,
    RunQuery,
    RunRecord,
    Slice,
)
from polos_service.store.nats.address import Address
from polos_service.store.nats.background import Background
from polos_service.store.nats.bound import Bound
from polos_service.store.nats.claims import Claims
from polos_service.store.nats.health import Health
from polos_service.store.nats.link import Link
from polos_service.store.nats.listing import Listing
from polos_service.store.nats.log import Log
from polos_service.store.nats.record import Life, Record
from polos_service.store.nats.records import Records
from polos_service.store.nats.removal import Removal
from polos_service.store.nats.streams import make_streams
from polos_service.store.nats.subjects import COMMANDED, log_subject, value_of
from polos_service.store.nats.sweep import Sweep
from polos_service.store.nats.tails import Tails
from polos_service.store.nats.work import Work
from polos_service.store.refusals import not_finished
from polos_service.store.wakeups import Wakeups

__all__ = ["Address", "NatsStore"]

CLAIM_TIMEOUT = 15.0
"""Seconds of silence after which a run passes to another replica."""

RETRY_PAUSE = 1.0
"""Seconds before a reader who waits looks again for a NATS that was away."""


class NatsStore:
    """A RunStore in JetStream, made by `open`."""

    def __init__(self, link: Link, claim_timeout: float, max_queued: int) -> None:
        self._link = link
        self._signals = Wakeups()
        self._background = Background()
        self._log = Log(link)
        self._records = Records(link)
        self._tails = Tails(link, self._log, self._records, self._signals, self._background)
        self._work = Work(link, self._background, claim_timeout)
        self._claims = Claims(
            log=self._log,
            records=self._records,
            work=self._work,
            tails=self._tails,
            signals=self._signals,
            background=self._background,
            claim_timeout=claim_timeout,
        )
        self._bound = Bound(link, max_queued, lambda: self._claims.past_queue)
        self._listing = Listing(link, self._log, self._records, self._work)
        self._sweep = Sweep(link, self._log, self._records, self._work, self._claims)
        self._health = Health(link)
        self._removal = Removal(link, self._log, self._records, self._work)

    @classmethod
    async def open(
        cls,
        address: Address,
        *,
        replicas: int = 1,
        claim_timeout: float = CLAIM_TIMEOUT,
        max_queued: int = MAX_QUEUED,
    ) -> NatsStore:
        """Connect, and make the streams that are missing.

        Args:
            address: where NATS is.
            replicas: servers that each message is kept by, where streams are made.
            claim_timeout: seconds of silence after which a run passes to another replica.
            max_queued: runs that may be queued.

        Raises:
            StoreUnavailable: NATS does not answer, or has no JetStream.

        """
        link = await Link.open(address)
        try:
            await make_streams(link, replicas)
            store = cls(link, claim_timeout, max_queued)
            await store._start()
        except BaseException:
            await link.close()
            raise
        return store

    async def close(self) -> None:
        """Finish what was begun, as long as a request is tried for, and disconnect.

        What is held passes to others.
        """
        await self._claims.close()
        await self._work.close()
        await self._tails.close()
        await self._background.settle(self._link.patience)
        await self._link.close()

    async def create(self, run: NewRun) -> str:
        """Store a queued run."""
        return await self._background.finish(self._create(run))

    async def claim(self, workflows: Collection[str]) -> Claim:
        """Claim a queued run of these workflows; each one's come oldest first."""
        while True:
            item = await self._work.next(workflows)
            claim = await self._background.finish(self._claims.take(item), self._give_back)
            if claim is not None:
                return claim

    async def claim_run(self, project: str, run_id: str, *, force: bool = False) -> Claim | None:
        """Claim this run if it is queued, or with `force` from whoever holds it."""
        return await self._background.finish(
            self._claims.take_run(project, run_id, force=force), self._give_back
        )

    async def overdue(self, now: int, stuck: int) -> Sequence[tuple[str, str]]:
        """Return queued runs past their deadline, and held ones whose deadline is long past.

        Runs that a crash left half-way are mended on the way, some at each call.
        """
        await self._background.finish(self._sweep.go_on())
        return await self._listing.overdue(now, stuck)

    async def waiting(self) -> Mapping[str, int]:
        """Return how many runs are queued, by workflow."""
        return await self._listing.waiting()

    async def release(self, claim: Claim, *, failed: bool = False) -> None:
        """Queue the run again."""
        await self._background.finish(self._claims.release(claim, failed=failed))

    async def append(self, claim: Claim, frame: Frame, private: bytes = b"") -> None:
        """Append a frame, then wake the run's readers here; the stream wakes the others."""
        await self._background.finish(self._claims.append(claim, frame, private))

    async def read(self, project: str, run_id: str, after: int, limit: int) -> Slice:
        """Read frames from the cursor on."""
        tail = await self._tails.of(project, run_id)
        if after > tail.latest:  # the reader comes from a replica that has heard more
            await self._tails.look(tail)
        latest, ended = tail.latest, tail.ended
        if after >= latest:
            return Slice(frames=(), latest=latest, ended=ended)
        frames = await self._tails.read(tail, after, limit)
        if not frames:
            await self._records.get(project, run_id)  # removed meanwhile?
            raise StoreUnavailable(
                f"NATS lacks events of run {run_id} behind {after}. Restore the stream."
            )
        return Slice(frames=frames, latest=max(latest, frames[-1].last), ended=ended)

    async def wait(self, project: str, run_id: str, after: int) -> None:
        """Wait for an event after the cursor; while NATS is away, too."""
        while True:
            try:
                tail = await self._tails.of(project, run_id)
            except StoreUnavailable:
                await asyncio.sleep(RETRY_PAUSE)
                continue
            if tail.ended or tail.latest > after:
                return
            await self._tails.wait(tail, after)

    async def history(self, claim: Claim) -> AsyncIterator[Entry]:
        """Yield every frame with its private part."""
        held = self._claims.find(claim)
        subject = log_subject(claim.project, claim.run_id)
        if held is not None:
            until = held.sequence
        else:
            await self._records.get(claim.project, claim.run_id)
            last = await self._log.last(subject)
            until = last.sequence if last is not None else 0
        async for entry in self._log.history(subject, until):
            yield entry

    async def command(self, project: str, run_id: str, command: Command) -> None:
        """Put a command into the inbox of a run that has not ended."""
        await self._background.finish(self._command(project, run_id, command.kind))

    async def commands(self, claim: Claim, seen: int) -> Sequence[Command]:
        """Wait for commands behind the first `seen`.

        Raises:
            Fenced: the claim was lost.

        """
        return await self._claims.commands(claim, seen)

    async def get(self, project: str, run_id: str) -> RunRecord:
        """Return the run's record."""
        return await self._listing.get(project, run_id)

    async def list(self, project: str, query: RunQuery) -> Sequence[RunRecord]:
        """Return a page of records."""
        return await self._listing.page(project, query)

    async def delete(self, project: str, run_id: str) -> None:
        """Remove an ended run with its log and inbox."""
        await self._background.finish(self._delete(project, run_id))

    async def expire(self, before: int) -> bool:
        """Remove a run that ended before a time."""
        return await self._background.finish(self._removal.expire(before))

    async def healthy(self) -> bool:
        """Return whether events can be stored, as far as NATS knows."""
        return await self._health.good()

    async def _start(self) -> None:
        await self._link.subscribe(COMMANDED, self._commanded)
        await self._work.start()
        self._tails.start()
        self._claims.start()

    async def _commanded(self, message: Msg) -> None:
        try:
            project, run_id = (value_of(part) for part in message.subject.split(".")[2:])
        except ValueError as error:
            self._link.foreign.skip(message.subject, 0, str(error))
        else:
            self._signals.notify(("inbox", project, run_id))

    async def _create(self, run: NewRun) -> str:
        """Store request id, record and queue in this order; a repeated start goes on from there."""
        try:
            await self._bound.enter()
        except TooManyRuns:
            if not await self._records.reserved(run):
                raise
        run_id = await self._records.reserve(run)
        record = await self._records.find(run.project, run_id)
        if record is not None and record.life is Life.DELETING:
            await self._removal.go_on(record)
            # Under its own id: whoever still removes the other run must not find this one.
            return await self._create(run)
        if record is None:
            record = await self._records.create(replace(run, run_id=run_id))
        if record.life is Life.OPEN:
            await self._work.put(record)
        return record.run_id

    async def _give_back(self, claim: Claim | None) -> None:
        if claim is not None:
            await self._claims.release(claim)

    async def _command(self, project: str, run_id: str, kind: str) -> None:
        if (await self._settled(project, run_id)).life is Life.OPEN:
            await self._records.command(project, run_id, kind)

    async def _settled(self, project: str, run_id: str) -> Record:
        """Return the record, brought in line with the log."""
        record = await self._records.get(project, run_id)
        if record.life is Life.OPEN:
            last = await self._log.last(log_subject(project, run_id))
            if last is not None and last.head.outcome:
                return await self._claims.finish(record, last.head)
        return record

    async def _delete(self, project: str, run_id: str) -> None:
        record = await self._settled(project, run_id)
        if record.life is Life.OPEN:
            raise not_finished(run_id)
        await self._removal.remove(record, Life.DELETING)
        self._tails.forget((project, run_id))
