"""Runs in a SQLite file, for one process on one machine.

One thread writes, and commits in groups (WAL, synchronous=FULL). Reads happen in the loop,
on a connection of their own. The file belongs to one process (see `file`), and is watched
while it is open (see `condition`).
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import (
    AsyncIterator,
    Callable,
    Collection,
    Mapping,
    Sequence,
)
from contextlib import suppress
from functools import partial
from pathlib import Path

from polos_client.errors import StoreUnavailable
from polos_service.cancelling import seen
from polos_service.limits import MAX_QUEUED
from polos_service.quotas import UNLIMITED, Quotas
from polos_service.store import (
    ENDED,
    Claim,
    Command,
    Entry,
    Frame,
    NewRun,
    Overdue,
    RunQuery,
    RunRecord,
    Slice,
    WaitRecord,
)
from polos_service.store.fairness import EQUAL, Weights
from polos_service.store.refusals import StoreInUse
from polos_service.store.sqlite import (
    claims,
    inbox,
    parking,
    queue,
    removal,
    runs,
    spool,
    waits,
    watching,
)
from polos_service.store.sqlite.access import Access
from polos_service.store.sqlite.committer import Committer
from polos_service.store.sqlite.condition import Condition, TakenOver
from polos_service.store.sqlite.file import InUseError, StoreFile, holder
from polos_service.store.sqlite.open_runs import OpenRuns
from polos_service.store.sqlite.opening import prepare
from polos_service.store.sqlite.queue import Rules
from polos_service.store.sqlite.reading import Reader
from polos_service.store.sqlite.schema import Synchronous, connect
from polos_service.store.sqlite.snapshots import Snapshots
from polos_service.store.sqlite.spending import Usage
from polos_service.store.sqlite.tails import Tails
from polos_service.store.wakeups import Wakeups


class SqliteStore:
    """A RunStore in one file, made by `open`."""

    shared = False
    """One process works on a file."""

    def __init__(self, file: StoreFile, synchronous: Synchronous, rules: Rules) -> None:
        self._file = file
        self._rules = rules
        self._db = connect(file.path, synchronous)
        self._reader = connect(file.path)
        self._reader.execute("PRAGMA query_only = ON")
        self._condition = Condition(file)
        self._condition.require_owner(self._reader)
        self._reading = Snapshots(self._reader, self._condition)
        file.remember()
        self._wakeups = Wakeups()
        self._spool = spool.Spool(file.token)
        self._tails = Tails()
        self._open = OpenRuns(self._wakeups)
        self._spooled = 0
        """Bytes in the spool at most."""
        self._unspooling: asyncio.Future[None] | None = None
        self._committer = Committer(self._db, self._condition, self._spool)
        self.access = Access(self._committer, self._reading)
        self.usage = Usage(self._committer, self._reading)
        self._claims = claims.Claims(
            self._committer, self._spool, self._tails, self._open, self._wakeups
        )
        self._logs = Reader(self._reading, self._tails, self._open, self._committer, self._spool)
        self._waker = parking.Waker(self._wake_due, parking.next_wake(self._reader))
        self._removal = removal.Removal(self._committer, self._wakeups)
        for run in removal.removals(self._reader):
            self._removal.go_on(run)

    @classmethod
    async def open(
        cls,
        path: Path,
        synchronous: Synchronous = "FULL",
        max_queued: int = MAX_QUEUED,
        weights: Weights = EQUAL,
        quotas: Quotas = UNLIMITED,
    ) -> SqliteStore:
        """Open the file, which is created if it is missing, and queue the runs left running.

        `weights` and `quotas` are those of the projects that share the queue.

        Raises:
            StoreInUse: another process, or another service in this one, has it open.
            StoreUnavailable: it has a second name, it cannot be written, or it is not a store of
                this version or an older one.

        """
        try:
            file = StoreFile(path)
            try:
                prepare(file.path, file.token)
                return cls(file, synchronous, Rules(max_queued, weights, quotas))
            except BaseException:
                file.close()
                raise
        except InUseError:
            raise StoreInUse(
                f"The store {path} is in use by {holder(path)}. Stop that one, or give this "
                "one a store of its own (--store, POLOS_STORE)."
            ) from None
        except (OSError, sqlite3.Error) as error:
            raise StoreUnavailable(f"The store {path} cannot be opened: {error}.") from error

    async def expire(self, before: int) -> bool:
        """Remove a piece of a run that ended before a time."""
        return await self._committer.submit(lambda db: removal.expire(db, before))

    async def healthy(self) -> bool:
        """Return whether the file is there, undamaged and ours, and the disk works."""
        if not self._committer.working:
            return False
        with suppress(StoreUnavailable, TimeoutError):
            self._condition.inspect()
            with self._reading() as db:
                self._condition.require_owner(db)
            await self._condition.look()
            await self._condition.probe(self._committer.submit)
            self._condition.inspect()
            return True
        return False

    async def close(self) -> None:
        """Commit everything that was submitted, then close the file and release it."""
        await self._waker.close()
        await self._committer.close()
        await self._condition.close()
        self._reader.close()
        if self._condition.trouble is None:
            # The next process takes it over all the same, and recovers what is in the spool.
            with suppress(sqlite3.Error, StoreUnavailable):
                self._db.execute("BEGIN IMMEDIATE")
                self._condition.require_owner(self._db)
                self._spool.unspool_all(self._db)
                self._db.execute("DELETE FROM owner")
                self._db.execute("COMMIT")
        self._db.close()
        self._file.close()

    async def create(self, run: NewRun) -> str:
        """Store a queued run."""
        return await self._committer.submit(
            lambda db: runs.insert_run(db, run, self._rules),
            lambda run_id: self._open.created(run, run_id),
        )

    async def claim(self, workflows: Collection[str], limit: int) -> Sequence[Claim]:
        """Claim queued runs of these workflows, project by project, in one commit."""
        while True:
            arrived = self._wakeups.event("queue")
            names = list(workflows)  # in the loop, where names are added
            found = await self._claims.take(partial(queue.find_queued, names, limit, self._rules))
            if found:
                return found
            await arrived.wait()

    async def claim_run(self, project: str, run_id: str, *, force: bool = False) -> Claim | None:
        """Claim this run, if it is queued, or with `force` if it has not ended."""
        found = await self._claims.take(lambda db: claims.find_run(db, project, run_id, held=force))
        return found[0] if found else None

    async def overdue(self, now: int, stuck: int) -> Sequence[Overdue]:
        """Return queued runs that should have ended, and held runs that should have long ago."""
        with self._reading() as db:
            return claims.overdue(db, now, stuck)

    async def waiting(self) -> Mapping[str, int]:
        """Return how many runs are queued, by workflow."""
        with self._reading() as db:
            return queue.waiting(db)

    async def release(self, claim: Claim, *, failed: bool = False, left: str = "") -> None:
        """Queue the run again."""
        if (claim.project, claim.run_id) in self._open:
            with suppress(TakenOver):  # the claim was lost, with all others
                await self._claims.requeue([claim], failed=failed, left=left)

    def append(self, claim: Claim, frame: Frame, private: bytes = b"") -> asyncio.Future[None]:
        """Append a frame, then wake the run's readers."""
        self._open.appending((claim.project, claim.run_id))
        if frame.outcome is not None:
            return self._end(claim, frame, private)
        return self._committer.submit(
            lambda db: self._spool.append(db, claim, frame, private),
            lambda _: self._appended(claim, frame, len(frame.data) + len(private)),
            spools=spool.fits(frame, private),
        )

    def _end(self, claim: Claim, frame: Frame, private: bytes) -> asyncio.Future[None]:
        """Append the last frame, and tell those who wait for the run's end."""
        told: list[str] = []

        def end(db: sqlite3.Connection) -> None:
            self._spool.append(db, claim, frame, private)
            told[:] = watching.tell(db, claim.project, claim.run_id)

        def ended(_: None) -> None:
            self._appended(claim, frame, len(frame.data) + len(private))
            for root in told:
                self._open.commanded((claim.project, root))

        return self._committer.submit(end, ended)

    async def read(
        self, project: str, run_id: str, after: int, limit: int, branch: int | None = None
    ) -> Slice:
        """Read frames from the cursor on."""
        return self._logs.read(project, run_id, after, limit, branch)

    async def wait(self, project: str, run_id: str, after: int) -> None:
        """Wait for an event after the cursor."""
        while True:
            appended = self._wakeups.event(("log", project, run_id))
            if self._logs.grown(project, run_id, after):
                return
            await appended.wait()

    def follow(self, project: str, run_id: str, wake: Callable[[], None]) -> Callable[[], None]:
        """Have `wake` called whenever the log has grown, or the run was removed."""
        return self._wakeups.follow(("log", project, run_id), wake)

    def history(self, claim: Claim) -> AsyncIterator[Entry]:
        """Yield every frame with its private part."""
        return self._logs.history(claim)

    async def command(self, project: str, run_id: str, command: Command) -> Command | None:
        """Put a command into the inbox of a run that has not ended."""
        return await self._committer.submit(
            lambda db: inbox.insert_command(db, project, run_id, command),
            lambda _: self._open.commanded((project, run_id)),
        )

    async def settle(self, project: str, run_id: str, command: Command) -> None:
        """Put a command of the kind SETTLED in the place of the one that has its id."""
        await self._committer.submit(lambda db: inbox.settle_command(db, project, run_id, command))

    async def inbox(self, project: str, run_id: str) -> Sequence[Command]:
        """Return what the run's inbox holds now."""
        with self._reading() as db:
            run, state = runs.row_of(db, project, run_id)
            return () if state in ENDED else inbox.commands_after(db, run, 0)

    async def suspend(
        self, claim: Claim, *, wake_at: int | None, seen: int, deadline: int | None
    ) -> bool:
        """Suspend the run until a command comes or a time has come."""

        def suspended(parked: bool) -> None:  # noqa: FBT001 - what the commit returns
            if parked:
                self._tails.drop((claim.project, claim.run_id))
                self._open.left((claim.project, claim.run_id))
                self._waker.suspended(parking.earliest(wake_at, deadline))

        return await self._committer.submit(
            lambda db: parking.suspend(
                db, self._spool, claim, wake_at=wake_at, seen=seen, deadline=deadline
            ),
            suspended,
        )

    async def _wake_due(self, now: int) -> int | None:
        return await self._committer.submit(
            lambda db: parking.wake_due(db, now), lambda _: self._wakeups.notify("queue")
        )

    async def wake(self, project: str, run_id: str) -> bool:
        """Queue a suspended run again."""
        return await self._committer.submit(
            lambda db: parking.wake_run(db, project, run_id),
            lambda _: self._wakeups.notify("queue"),
        )

    def on_room(self, wake: Callable[[], None]) -> Callable[[], None]:
        """Have `wake` called whenever runs were claimed."""
        return self._wakeups.follow(claims.ROOM, wake)

    async def watch(self, project: str, run_id: str, root: str) -> bool:
        """Have the end of a run told to a root run."""
        return await self._committer.submit(lambda db: watching.watch(db, project, run_id, root))

    async def open_wait(self, project: str, wait: WaitRecord) -> None:
        """Put a wait into the index of open waits."""
        await self._committer.submit(lambda db: waits.open_wait(db, project, wait))

    async def close_wait(self, project: str, run_id: str, wait_id: int) -> None:
        """Take a wait out of the index."""
        await self._committer.submit(lambda db: waits.close_wait(db, project, run_id, wait_id))

    async def open_waits(self, project: str, run_id: str) -> Sequence[WaitRecord]:
        """Return the open waits of a run."""
        with self._reading() as db:
            return waits.waits_of(db, project, run_id)

    async def list_waits(
        self, project: str, limit: int, after: tuple[int, str, int] | None = None
    ) -> Sequence[WaitRecord]:
        """Return a page of the open waits of a project."""
        with self._reading() as db:
            return waits.page_of(db, project, limit, after)

    async def commands(self, claim: Claim, seen: int) -> Sequence[Command]:
        """Wait for commands behind the first `seen`."""
        while True:
            key = (claim.project, claim.run_id)
            arrived = self._wakeups.event(("inbox", *key))
            if self._open.is_commanded(key, seen):
                with self._reading() as db:
                    run, _ = runs.row_of(db, *key)
                    if found := inbox.commands_after(db, run, seen):
                        return found
            await arrived.wait()

    async def get(self, project: str, run_id: str) -> RunRecord:
        """Return the run's record."""
        with self._reading() as db:
            return self._tails.up_to_date(project, runs.record_of(db, project, run_id))

    async def list(self, project: str, query: RunQuery) -> Sequence[RunRecord]:
        """Return a page of records."""
        with self._reading() as db:
            found = runs.records(db, project, query)
        return [self._tails.up_to_date(project, one) for one in found]

    async def definition(self, project: str, run_id: str) -> bytes:
        """Return what a run was created with."""
        with self._reading() as db:
            return runs.definition_of(db, project, run_id)

    async def private(self, project: str, run_id: str, sequence: int) -> bytes:
        """Return what is stored beside an event."""
        return await self._logs.private(project, run_id, sequence)

    async def delete(self, project: str, run_id: str) -> None:
        """Remove an ended run with its log and inbox: at once for readers, in pieces on disk."""
        await self._removal.delete(project, run_id)

    def _appended(self, claim: Claim, frame: Frame, size: int) -> None:
        key = (claim.project, claim.run_id)
        if frame.outcome is not None:
            self._tails.drop(key)
            self._open.left(key)
            if self._rules.quotas.bound_runs:
                self._wakeups.notify("queue")  # the project may begin another one
        else:
            self._tails.add(key, frame)
            if size >= spool.LARGE:
                self._tails.unspooled(key)
            else:
                self._spooled += spool.ENTRY.size + size
                if self._spooled > spool.SPOOL_LIMIT:
                    self._make_room()
        self._wakeups.notify(("log", *key))

    def _unspool_all(self) -> asyncio.Future[None]:
        return self._committer.submit(self._spool.unspool_all, self._all_unspooled)

    def _make_room(self) -> None:
        """Empty the spool, unless that is under way."""
        if self._committer.working and (self._unspooling is None or self._unspooling.done()):
            self._unspooling = self._unspool_all()
            self._unspooling.add_done_callback(seen)  # it is tried again

    def _all_unspooled(self, _: None) -> None:
        self._spooled = 0
        self._tails.all_unspooled()
