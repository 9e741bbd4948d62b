"""The store of one replica: every method of the port, put together from the parts."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from dataclasses import replace

from nats.aio.msg import Msg

from polos_client.errors import StoreUnavailable
from polos_service import store as port
from polos_service.limits import MAX_QUEUED
from polos_service.logs import get_logger
from polos_service.quotas import UNLIMITED, Quotas
from polos_service.store.fairness import EQUAL, Weights
from polos_service.store.nats.access import Access
from polos_service.store.nats.bound import Admission, Bound, ProjectBound
from polos_service.store.nats.claims import Claims
from polos_service.store.nats.connection import Connection, Endpoint
from polos_service.store.nats.delivery import Delivery
from polos_service.store.nats.feeds import Feeds
from polos_service.store.nats.inbox import Inbox, InboxView
from polos_service.store.nats.jetstream import JetStream
from polos_service.store.nats.lines import Lines
from polos_service.store.nats.listing import Listing
from polos_service.store.nats.log import Log
from polos_service.store.nats.overdue import DueRuns
from polos_service.store.nats.parking import Parking
from polos_service.store.nats.queue import Queue
from polos_service.store.nats.records import DefinitionLost, Life, Records
from polos_service.store.nats.shares import Shares
from polos_service.store.nats.shielded import ShieldedTasks
from polos_service.store.nats.streams import Health, make_streams
from polos_service.store.nats.subjects import COMMANDED, inbox_of, log_subject
from polos_service.store.nats.upkeep import Parts, Removal, Sweep
from polos_service.store.nats.usage import Usage
from polos_service.store.nats.waits import Place, WaitIndex
from polos_service.store.nats.waker import Waker
from polos_service.store.nats.watching import Watchers
from polos_service.store.refusals import not_finished
from polos_service.store.wakeups import Wakeups

CLAIM_TIMEOUT = 15.0
"""Seconds of silence after which a run passes to another replica."""

ROOM = "room"
"""The key of the wake-up when a run has left the queue."""

RETRY_PAUSE = 1.0
"""Seconds before a reader who waits looks again for a NATS that was away."""

log = get_logger(__name__)


class NatsStore:
    """A RunStore in JetStream, made by `open`."""

    shared = True
    """Any number of processes work on it."""

    def __init__(
        self,
        jetstream: JetStream,
        *,
        claim_timeout: float,
        max_queued: int,
        weights: Weights,
        quotas: Quotas,
        replicas: int,
    ) -> None:
        self._jetstream = jetstream
        self.access = Access(jetstream, replicas)
        self.usage = Usage(jetstream, replicas)
        self._wakeups = Wakeups()
        self._tasks = ShieldedTasks()
        self._log = Log(jetstream)
        self._records = Records(jetstream)
        self._inbox = Inbox(jetstream)
        self._feeds = Feeds(jetstream, self._log, self._records, self._wakeups, self._tasks)
        self._shares = Shares(jetstream, claim_timeout)
        lines = Lines(jetstream, claim_timeout, weights, quotas, self._shares.held)
        self._queue = Queue(jetstream, self._tasks, lines)
        self._parking = Parking(jetstream, self._inbox, self._queue)
        self._waits = WaitIndex(jetstream, self._log, self._records)
        self._delivery = Delivery(self._log, self._records, self._inbox, self._parking)
        self._watchers = Watchers(jetstream, self._log, self._records, self._delivery.order)
        self._claims = Claims(
            log=self._log,
            records=self._records,
            inbox=self._inbox,
            queue=self._queue,
            parking=self._parking,
            watchers=self._watchers,
            feeds=self._feeds,
            wakeups=self._wakeups,
            tasks=self._tasks,
            claim_timeout=claim_timeout,
        )
        bound = Bound(jetstream, max_queued, lambda: self._claims.past_queue)
        self._admission = Admission(
            bound, ProjectBound(jetstream), self.usage, self._records, quotas
        )
        self._listing = Listing(jetstream, self._log, self._records, self._queue)
        parts = Parts(
            jetstream=jetstream,
            log=self._log,
            records=self._records,
            inbox=self._inbox,
            queue=self._queue,
            parking=self._parking,
            waits=self._waits,
            watchers=self._watchers,
        )
        self._due_runs = DueRuns(parts)
        self._waker = Waker(parts)
        self._sweep = Sweep(parts)
        self._health = Health(jetstream)
        self._removal = Removal(parts)

    @classmethod
    async def open(
        cls,
        endpoint: Endpoint,
        *,
        replicas: int = 1,
        claim_timeout: float = CLAIM_TIMEOUT,
        max_queued: int = MAX_QUEUED,
        weights: Weights = EQUAL,
        quotas: Quotas = UNLIMITED,
    ) -> NatsStore:
        """Connect, and make the streams that are missing.

        Args:
            endpoint: where NATS is.
            replicas: servers that each message is kept by, where streams are made.
            claim_timeout: seconds of silence after which a run passes to another replica.
            max_queued: runs that may be queued.
            weights: those of the projects that share the queue; see `fairness`.
            quotas: the limits of projects.

        Raises:
            StoreUnavailable: NATS does not answer, or has no JetStream.

        """
        jetstream = JetStream(await Connection.open(endpoint))
        try:
            await make_streams(jetstream, replicas)
            store = cls(
                jetstream,
                claim_timeout=claim_timeout,
                max_queued=max_queued,
                weights=weights,
                quotas=quotas,
                replicas=replicas,
            )
            await store._start()
        except BaseException:
            await jetstream.close()
            raise
        return store

    async def close(self) -> None:
        """Finish what was begun, as long as a request is tried for, and disconnect.

        What is held passes to others.
        """
        await self._waker.close()
        await self._claims.close()
        await self._shares.close()
        await self._queue.close()
        await self._feeds.close()
        await self._tasks.settle(self._jetstream.patience)
        await self._jetstream.close()

    async def create(self, run: port.NewRun) -> str:
        """Store a queued run."""
        return await self._tasks.finish(self._create(run))

    async def claim(
        self,
        workflows: Collection[str],
        limit: int,  # noqa: ARG002 - items come one by one, so that replicas share them
    ) -> Sequence[port.Claim]:
        """Claim one queued run of these workflows, project by project."""
        while True:
            item = await self._queue.next(workflows)
            claim = await self._tasks.finish(self._claims.take(item), self._give_back)
            if claim is not None:
                self._wakeups.notify(ROOM)
                return [claim]

    async def claim_run(
        self, project: str, run_id: str, *, force: bool = False
    ) -> port.Claim | None:
        """Claim this run if it is queued, or with `force` from whoever holds it."""
        return await self._tasks.finish(
            self._claims.take_run(project, run_id, force=force), self._give_back
        )

    async def overdue(self, now: int, stuck: int) -> Sequence[port.Overdue]:
        """Return queued runs that should have ended, and held runs that should have long ago.

        Runs that a crash left half-way are mended on the way, some at each call.
        """
        await self._tasks.finish(self._sweep.go_on())
        return await self._due_runs.overdue(now, stuck)

    async def waiting(self) -> Mapping[str, int]:
        """Return how many runs are queued, by workflow."""
        return await self._listing.waiting()

    async def release(self, claim: port.Claim, *, failed: bool = False, left: str = "") -> None:
        """Queue the run again."""
        await self._tasks.finish(self._claims.release(claim, failed=failed, left=left))

    def append(
        self, claim: port.Claim, frame: port.Frame, private: bytes = b""
    ) -> asyncio.Future[None]:
        """Append a frame, then wake the run's readers here; the stream wakes the others."""
        return asyncio.shield(self._tasks.begin(self._claims.append(claim, frame, private)))

    async def read(
        self, project: str, run_id: str, after: int, limit: int, branch: int | None = None
    ) -> port.Slice:
        """Read frames from the cursor on, those of all branches: JetStream cannot tell them apart.

        A log is one subject, and a message may have events of many children.
        """
        del branch
        feed = await self._feeds.of(project, run_id)
        if after > feed.latest:  # the reader comes from a replica that has heard more
            await self._feeds.look(feed)
        latest, ended = feed.latest, feed.ended
        if after >= latest:
            return port.Slice(frames=(), latest=latest, ended=ended, covered=after)
        frames = await self._feeds.read(feed, after, limit)
        if not frames:
            await self._records.get(project, run_id)  # removed meanwhile?
            raise StoreUnavailable(
                f"NATS lacks events of run {run_id} after {after}. Restore the stream."
            )
        covered = frames[-1].last
        return port.Slice(frames=frames, latest=max(latest, covered), ended=ended, covered=covered)

    async def wait(self, project: str, run_id: str, after: int) -> None:
        """Wait for an event after the cursor; while NATS is away, too."""
        while True:
            try:
                feed = await self._feeds.of(project, run_id)
            except StoreUnavailable:
                await asyncio.sleep(RETRY_PAUSE)
                continue
            if feed.ended or feed.latest > after:
                return
            await self._feeds.wait(feed, after)

    def follow(self, project: str, run_id: str, wake: Callable[[], None]) -> Callable[[], None]:
        """Have `wake` called whenever the log has grown, or the run has ended or was removed."""
        return self._feeds.follow((project, run_id), wake)

    async def history(self, claim: port.Claim) -> AsyncIterator[port.Entry]:
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

    async def command(
        self, project: str, run_id: str, command: port.Command
    ) -> port.Command | None:
        """Put a command last into the inbox of a run that has not ended, and wake the run."""
        return await self._tasks.finish(self._command(project, run_id, command))

    async def settle(self, project: str, run_id: str, command: port.Command) -> None:
        """Put a command of the kind SETTLED in the place of the one that has its id."""
        await self._records.get(project, run_id)
        await self._tasks.finish(self._inbox.settle(project, run_id, command))

    async def commands(self, claim: port.Claim, seen: int) -> Sequence[port.Command]:
        """Wait for commands behind the first `seen`.

        Raises:
            Fenced: the claim was lost.

        """
        return await self._claims.commands(claim, seen)

    async def inbox(self, project: str, run_id: str) -> Sequence[port.Command]:
        """Return what the run's inbox holds now."""
        view = InboxView()
        if (await self._watchers.settled(project, run_id)).life is Life.OPEN:
            await self._inbox.look(project, run_id, view)
        return view.commands

    async def suspend(
        self, claim: port.Claim, *, wake_at: int | None, seen: int, deadline: int | None
    ) -> bool:
        """Suspend the run until a command comes or a time has come."""
        suspending = self._claims.suspend(claim, wake_at=wake_at, seen=seen, deadline=deadline)
        parked = await self._tasks.finish(suspending)
        self._waker.look()
        return parked

    async def wake(self, project: str, run_id: str) -> bool:
        """Queue a suspended run again."""
        return await self._tasks.finish(self._delivery.wake(project, run_id))

    def on_room(self, wake: Callable[[], None]) -> Callable[[], None]:
        """Have `wake` called whenever this replica has claimed a run from the queue."""
        return self._wakeups.follow(ROOM, wake)

    async def watch(self, project: str, run_id: str, root: str) -> bool:
        """Have the end of a run told to a root run."""
        return await self._tasks.finish(self._watchers.watch(project, run_id, root))

    async def open_wait(self, project: str, wait: port.WaitRecord) -> None:
        """Put a wait into the index of open waits."""
        await self._tasks.finish(self._waits.open(project, wait))

    async def close_wait(self, project: str, run_id: str, wait_id: int) -> None:
        """Take a wait out of the index."""
        await self._tasks.finish(self._waits.close(project, run_id, wait_id))

    async def open_waits(self, project: str, run_id: str) -> Sequence[port.WaitRecord]:
        """Return the open waits of a run."""
        return await self._waits.of_run(project, run_id)

    async def list_waits(
        self, project: str, limit: int, after: Place | None = None
    ) -> Sequence[port.WaitRecord]:
        """Return a page of the open waits of a project."""
        return await self._waits.page(project, limit, after)

    async def get(self, project: str, run_id: str) -> port.RunRecord:
        """Return the run's record."""
        return await self._listing.get(project, run_id)

    async def list(self, project: str, query: port.RunQuery) -> Sequence[port.RunRecord]:
        """Return a page of records."""
        return await self._listing.page(project, query)

    async def definition(self, project: str, run_id: str) -> bytes:
        """Return what a run was created with."""
        record = await self._records.get(project, run_id)
        try:
            return await self._records.definition(record)
        except DefinitionLost as error:
            log.warning("definition_lost", run_id=run_id, error=str(error))
            return b""

    async def private(self, project: str, run_id: str, sequence: int) -> bytes:
        """Return what is stored beside an event."""
        await self._records.get(project, run_id)
        return await self._log.private(log_subject(project, run_id), sequence)

    async def delete(self, project: str, run_id: str) -> None:
        """Remove an ended run with its log and inbox."""
        await self._tasks.finish(self._delete(project, run_id))

    async def expire(self, before: int) -> bool:
        """Remove a run that ended before a time."""
        return await self._tasks.finish(self._removal.expire(before))

    async def healthy(self) -> bool:
        """Return whether events can be stored, as far as NATS knows."""
        return await self._health.good()

    async def _start(self) -> None:
        await self._jetstream.subscribe(COMMANDED, self._commanded)
        await self._queue.start()
        self._feeds.start()
        self._claims.start()
        self._waker.start()
        await self._shares.start(self._claims.held, self._claims.period, self._queue.look)

    async def _commanded(self, message: Msg) -> None:
        self._wakeups.notify(("inbox", inbox_of(message.subject)))

    async def _create(self, run: port.NewRun) -> str:
        """Store request id, record and queue in this order; a repeated start goes on from there."""
        await self._admission.enter(run)
        run_id = await self._records.reserve(run)
        record = await self._records.find(run.project, run_id)
        if record is not None and record.life is Life.DELETING:
            await self._removal.go_on(record)
            # Under its own id: whoever still removes the other run must not find this one.
            return await self._create(run)
        if record is None:
            record = await self._records.create(replace(run, run_id=run_id))
        if record.life is Life.OPEN:
            await self._queue.put(record)
        return record.run_id

    async def _give_back(self, claim: port.Claim | None) -> None:
        if claim is not None:
            await self._claims.release(claim)

    async def _command(
        self, project: str, run_id: str, command: port.Command
    ) -> port.Command | None:
        if (await self._watchers.settled(project, run_id)).life is not Life.OPEN:
            return None
        return await self._delivery.put(project, run_id, command)

    async def _delete(self, project: str, run_id: str) -> None:
        record = await self._watchers.settled(project, run_id)
        if record.life is Life.OPEN:
            raise not_finished(run_id)
        await self._removal.remove(record, Life.DELETING)
        self._feeds.forget((project, run_id))
