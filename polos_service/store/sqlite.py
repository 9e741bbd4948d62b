"""Runs in a SQLite file, for one process on one machine.

Writes go through one thread that commits in groups (WAL, synchronous=FULL); reads
happen in the loop, on a connection of their own. A lock file beside the database
makes a second process an error.
"""

from __future__ import annotations

import asyncio
import os
import sqlite3
from collections.abc import (
    AsyncIterator,
    Callable,
    Collection,
    Iterable,
    Iterator,
    Mapping,
    Sequence,
)
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import TypeVar

from filelock import FileLock, Timeout

from polos_client.errors import StoreUnavailable
from polos_service.store import (
    ENDED,
    MAX_QUEUED,
    Claim,
    Entry,
    Frame,
    NewRun,
    RunQuery,
    RunRecord,
    Slice,
)
from polos_service.store import statements as sql
from polos_service.store.committer import Committer
from polos_service.store.schema import Synchronous, connect, prepare
from polos_service.store.signals import Signals

T = TypeVar("T")

EXPIRY_PIECE = 256
"""Frames that retention deletes at a time: one commit that delays nobody for long."""

PAGE = 1024 * 1024
"""Bytes of history read before the loop gets a turn."""


class SqliteStore:
    """A RunStore in one file, made by `open`."""

    def __init__(
        self, path: Path, lock: FileLock, synchronous: Synchronous, max_queued: int
    ) -> None:
        self._lock = lock
        self._max_queued = max_queued
        self._writer = f"{os.uname().nodename}:{os.getpid()}"
        self._db = connect(path, synchronous)
        self._reader = connect(path)
        self._reader.execute("PRAGMA query_only = ON")
        self._signals = Signals()
        self._heads: dict[tuple[str, str], Frame] = {}
        self._committer = Committer(self._db)

    @classmethod
    async def open(
        cls, path: Path, synchronous: Synchronous = "FULL", max_queued: int = MAX_QUEUED
    ) -> SqliteStore:
        """Open the file, made if it is missing, and queue what a former process ran.

        Raises:
            StoreUnavailable: another process has it, it cannot be written, or it is
                not a store of this version.

        """
        lock = FileLock(f"{path}.lock", timeout=0)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            lock.acquire()
            prepare(path)
            return cls(path, lock, synchronous, max_queued)
        except Timeout:
            raise StoreUnavailable(
                f"The store {path} is in use by another process. Stop that one, or give this "
                "one a store of its own (--store, POLOS_STORE)."
            ) from None
        except (OSError, sqlite3.Error) as error:
            lock.release()
            raise StoreUnavailable(f"The store {path} cannot be opened: {error}.") from error

    async def expire(self, before: int) -> bool:
        """Remove a piece of what ended before a time."""
        return await self._commit(lambda db: sql.expire(db, before, EXPIRY_PIECE))

    async def healthy(self) -> bool:
        """Return True: a file that cannot be written tells so where it is written."""
        return True

    async def close(self) -> None:
        """Commit what was submitted, close the file, and free the lock."""
        await self._committer.close()
        self._reader.close()
        self._db.close()
        self._lock.release()

    async def create(self, run: NewRun) -> str:
        """Store a queued run."""
        return await self._commit(
            lambda db: sql.insert_run(db, run, self._max_queued), lambda: self._notify("queue")
        )

    async def claim(self, workflows: Collection[str]) -> Claim:
        """Claim the oldest queued run of these workflows."""
        while True:
            queued = self._signals.event("queue")
            names = list(workflows)  # here: the commit's thread would race with who adds one
            claim = await self._claim(partial(sql.find_queued, workflows=names))
            if claim is not None:
                return claim
            await queued.wait()

    async def claim_run(self, project: str, run_id: str) -> Claim | None:
        """Claim this run, if it is queued."""
        return await self._claim(lambda db: sql.find_run(db, project, run_id))

    async def overdue(self, now: int) -> Sequence[tuple[str, str]]:
        """Return the queued runs whose deadline has passed."""
        with reading():
            return sql.overdue(self._reader, now)

    async def waiting(self) -> Mapping[str, int]:
        """Return how many runs are queued, by workflow."""
        with reading():
            return sql.waiting(self._reader)

    async def release(self, claim: Claim) -> None:
        """Queue the run again."""
        await self._commit(lambda db: sql.requeue(db, claim), lambda: self._released(claim))

    async def append(self, claim: Claim, frame: Frame, private: bytes = b"") -> None:
        """Append a frame, then wake the run's readers."""
        await self._commit(
            lambda db: sql.insert_frame(db, claim, frame, private),
            lambda: self._appended(claim, frame),
        )

    async def read(self, project: str, run_id: str, after: int, limit: int) -> Slice:
        """Read frames from the cursor on."""
        # What was appended last is all that a reader lacks who keeps up; the file is not asked.
        head = self._heads.get((project, run_id))
        if head is not None and head.first <= after + 1 <= head.last:
            return Slice(frames=(head,), latest=head.last, ended=False)
        with reading():
            # The state is read before the frames: where it says that the run has ended,
            # the frames read after it are all there will ever be.
            run, state = self._find(project, run_id)
            frames = taken(sql.frames_after(self._reader, run, after), limit)
            return Slice(
                frames=frames, latest=sql.latest_of(self._reader, run), ended=state in ENDED
            )

    async def wait(self, project: str, run_id: str, after: int) -> None:
        """Wait for an event after the cursor."""
        while True:
            appended = self._signals.event(("log", project, run_id))
            if self._grown(project, run_id, after):
                return
            await appended.wait()

    async def history(self, claim: Claim) -> AsyncIterator[Entry]:
        """Yield every frame with its private part."""
        place = (-1, 0)
        while True:
            # A page at a time: a statement that stays open would hold the reader's
            # snapshot, and every tail with it, where it was.
            with reading():
                run, _ = self._find(claim.project, claim.run_id)
                place, page = sql.history_page(self._reader, run, place, PAGE)
            if not page:
                return
            for entry in page:
                yield entry
            await asyncio.sleep(0)

    async def command(self, project: str, run_id: str, kind: str) -> None:
        """Put a command into the inbox of a run that has not ended."""
        await self._commit(
            lambda db: sql.insert_command(db, project, run_id, kind),
            lambda: self._notify("inbox", project, run_id),
        )

    async def commands(self, claim: Claim, known: Collection[str]) -> frozenset[str]:
        """Wait for a command that is not known."""
        while True:
            arrived = self._signals.event(("inbox", claim.project, claim.run_id))
            with reading():
                run, _ = self._find(claim.project, claim.run_id)
                inbox = sql.inbox_of(self._reader, run)
            if not inbox <= frozenset(known):
                return inbox
            await arrived.wait()

    async def get(self, project: str, run_id: str) -> RunRecord:
        """Return the run's record."""
        with reading():
            return sql.record_of(self._reader, project, run_id)

    async def list(self, project: str, query: RunQuery) -> Sequence[RunRecord]:
        """Return a page of records."""
        with reading():
            return sql.records(self._reader, project, query)

    async def delete(self, project: str, run_id: str) -> None:
        """Remove an ended run with its log and inbox."""
        await self._commit(
            lambda db: sql.remove_run(db, project, run_id),
            lambda: self._notify("log", project, run_id),
        )

    async def _commit(
        self,
        operation: Callable[[sqlite3.Connection], T],
        committed: Callable[[], None] | None = None,
    ) -> T:
        try:
            return await self._committer.submit(operation, committed)
        except sqlite3.Error as error:
            raise StoreUnavailable(f"The store refused to write: {error}.") from error

    async def _claim(self, find: Callable[[sqlite3.Connection], int | None]) -> Claim | None:
        claiming = asyncio.ensure_future(
            self._commit(lambda db: sql.begin_claim(db, find(db), self._writer))
        )
        try:
            return await asyncio.shield(claiming)
        except asyncio.CancelledError:
            # The commit is under way all the same: nobody would ever hold that claim.
            claiming.add_done_callback(self._give_back)
            raise

    def _give_back(self, claiming: asyncio.Task[Claim | None]) -> None:
        if claiming.cancelled() or claiming.exception() is not None:
            return
        claim = claiming.result()
        if claim is not None:
            with suppress(StoreUnavailable):  # closed: the next to open it queues the run
                self._committer.submit(
                    lambda db: sql.requeue(db, claim), lambda: self._released(claim)
                )

    def _notify(self, *key: str) -> None:
        self._signals.notify(key[0] if len(key) == 1 else key)

    def _find(self, project: str, run_id: str) -> tuple[int, int]:
        return sql.row_of(self._reader, project, run_id)

    def _released(self, claim: Claim) -> None:
        self._heads.pop((claim.project, claim.run_id), None)
        self._notify("queue")

    def _appended(self, claim: Claim, frame: Frame) -> None:
        key = (claim.project, claim.run_id)
        if frame.outcome is None:
            self._heads[key] = frame
        else:
            self._heads.pop(key, None)
        self._notify("log", *key)

    def _grown(self, project: str, run_id: str, after: int) -> bool:
        head = self._heads.get((project, run_id))
        if head is not None:
            return head.last > after
        with reading():
            run, state = self._find(project, run_id)
            return state in ENDED or sql.latest_of(self._reader, run) > after


@contextmanager
def reading() -> Iterator[None]:
    """Tell what SQLite finds wrong as what it means to a caller."""
    try:
        yield
    except sqlite3.Error as error:
        raise StoreUnavailable(f"The store cannot be read: {error}.") from error


def taken(frames: Iterable[Frame], limit: int) -> list[Frame]:
    """Return the frames up to the one that reaches `limit` bytes."""
    found = []
    size = 0
    for frame in frames:
        found.append(frame)
        size += len(frame.data)
        if size >= limit:
            break
    return found
