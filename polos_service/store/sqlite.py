"""Runs in a SQLite file, for one process on one machine.

Writes go through one thread that commits in groups (WAL, synchronous=FULL); reads
happen in the loop, on a connection of their own. A lock file beside the database
makes a second process an error.
"""

from __future__ import annotations

import asyncio
import os
import sqlite3
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from pathlib import Path
from typing import TypeVar

from filelock import FileLock, Timeout

from polos.v1.run_pb2 import RunState
from polos_client.errors import StoreUnavailable
from polos_service.store import ENDED, Claim, Entry, Frame, NewRun, RunQuery, RunRecord, Slice
from polos_service.store import statements as sql
from polos_service.store.committer import Committer
from polos_service.store.signals import Signals

T = TypeVar("T")

PAGE = 1 << 20
"""Bytes of history read before the loop gets a turn."""


class SqliteStore:
    """A RunStore in one file, made by `open`."""

    def __init__(self, path: Path, lock: FileLock) -> None:
        self._lock = lock
        self._writer = f"{os.uname().nodename}:{os.getpid()}"
        self._db = sql.connect(path)
        self._reader = sql.connect(path)
        self._reader.execute("PRAGMA query_only = ON")
        self._signals = Signals()
        self._committer = Committer(self._db)

    @classmethod
    async def open(cls, path: Path) -> SqliteStore:
        """Open the file, made if it is missing, and queue what a former process ran.

        Raises:
            StoreUnavailable: another process has it, it cannot be written, or it is
                not a store of this version.

        """
        lock = FileLock(f"{path}.lock", timeout=0)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            lock.acquire()
            sql.prepare(path)
            return cls(path, lock)
        except Timeout:
            raise StoreUnavailable(
                f"The store {path} is in use by another process. Stop that one, or give this "
                "one a store of its own (--store, POLOS_STORE)."
            ) from None
        except (OSError, sqlite3.Error) as error:
            lock.release()
            raise StoreUnavailable(f"The store {path} cannot be opened: {error}.") from error

    async def close(self) -> None:
        """Commit what was submitted, close the file, and free the lock."""
        await self._committer.close()
        self._reader.close()
        self._db.close()
        self._lock.release()

    async def create(self, run: NewRun) -> str:
        """Store a queued run."""
        return await self._commit(lambda db: sql.insert_run(db, run), lambda: self._notify("queue"))

    async def claim(self, workflows: Collection[str]) -> Claim:
        """Claim the oldest queued run of these workflows."""
        while True:
            queued = self._signals.event("queue")
            claim = await self._claim(lambda db: sql.find_queued(db, workflows))
            if claim is not None:
                return claim
            await queued.wait()

    async def claim_run(self, project: str, run_id: str) -> Claim | None:
        """Claim this run, if it is queued."""
        return await self._claim(lambda db: sql.find_run(db, project, run_id))

    async def release(self, claim: Claim) -> None:
        """Queue the run again."""
        await self._commit(lambda db: sql.requeue(db, claim), lambda: self._notify("queue"))

    async def append(self, claim: Claim, frame: Frame, private: bytes = b"") -> None:
        """Append a frame, then wake the run's readers."""
        await self._commit(
            lambda db: sql.insert_frame(db, claim, frame, private),
            lambda: self._notify("log", claim.project, claim.run_id),
        )

    async def read(self, project: str, run_id: str, after: int, limit: int) -> Slice:
        """Read frames from the cursor on."""
        # The state is read before the frames: where it says that the run has ended,
        # the frames read after it are all there will ever be.
        run, state = self._find(project, run_id)
        frames = []
        size = 0
        for first, last, data in self._query(
            "SELECT first, last, data FROM frames WHERE run = ? AND last > ? AND first <= last "
            "ORDER BY last",
            (run, after),
        ):
            frames.append(Frame(first=first, last=last, data=data))
            size += len(data)
            if size >= limit:
                break
        return Slice(frames=frames, latest=self._latest(run), ended=state in ENDED)

    async def wait(self, project: str, run_id: str, after: int) -> None:
        """Wait for an event after the cursor."""
        appended = self._signals.event(("log", project, run_id))
        run, state = self._find(project, run_id)
        if state not in ENDED and self._latest(run) <= after:
            await appended.wait()

    async def history(self, claim: Claim) -> AsyncIterator[Entry]:
        """Yield every frame with its private part."""
        run, _ = self._find(claim.project, claim.run_id)
        size = 0
        for data, private in self._query(
            "SELECT data, private FROM frames WHERE run = ? ORDER BY last, id", (run,)
        ):
            yield Entry(data=data, private=private)
            size += len(data) + len(private)
            if size > PAGE:
                size = 0
                await asyncio.sleep(0)

    async def command(self, project: str, run_id: str, kind: str) -> None:
        """Put a command into the inbox of a run that has not ended."""
        await self._commit(
            lambda db: sql.insert_command(db, project, run_id, kind),
            lambda: self._notify("inbox", project, run_id),
        )

    async def commands(self, claim: Claim, known: Collection[str]) -> frozenset[str]:
        """Wait for a command that is not known."""
        run, _ = self._find(claim.project, claim.run_id)
        while True:
            arrived = self._signals.event(("inbox", claim.project, claim.run_id))
            inbox = sql.inbox_of(self._reader, run)
            if not inbox <= frozenset(known):
                return inbox
            await arrived.wait()

    async def get(self, project: str, run_id: str) -> RunRecord:
        """Return the run's record."""
        rows = list(
            self._query(
                f"SELECT {sql.RECORD} FROM runs WHERE project = ? AND run_id = ?", (project, run_id)
            )
        )
        if not rows:
            raise sql.not_found(run_id)
        return sql.to_record(rows[0])

    async def list(self, project: str, query: RunQuery) -> Sequence[RunRecord]:
        """Return a page of records."""
        conditions = {
            "project = ?": project,
            "run_id < ?": query.before,
            "workflow_id = ?": query.workflow_id,
            "state = ?": query.state,
            "session_id = ?": query.session_id,
            "user_id = ?": query.user_id,
            "create_time >= ?": query.created_from,
            "create_time < ?": query.created_before,
        }
        given = {term: value for term, value in conditions.items() if value is not None}
        rows = self._query(
            f"SELECT {sql.RECORD} FROM runs WHERE {' AND '.join(given)} "
            "ORDER BY run_id DESC LIMIT ?",
            (*given.values(), query.limit),
        )
        return [sql.to_record(row) for row in rows]

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
            claim = await claiming
            if claim is not None:
                await self.release(claim)
            raise

    def _notify(self, *key: str) -> None:
        self._signals.notify(key[0] if len(key) == 1 else key)

    def _query(self, sql: str, values: Sequence[object]) -> sqlite3.Cursor:
        try:
            return self._reader.execute(sql, values)
        except sqlite3.Error as error:
            raise StoreUnavailable(f"The store cannot be read: {error}.") from error

    def _find(self, project: str, run_id: str) -> tuple[int, RunState.ValueType]:
        row = self._query(
            "SELECT id, state FROM runs WHERE project = ? AND run_id = ?", (project, run_id)
        ).fetchone()
        if row is None:
            raise sql.not_found(run_id)
        run, state = row
        return run, state

    def _latest(self, run: int) -> int:
        return sql.latest_of(self._reader, run)
