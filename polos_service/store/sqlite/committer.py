"""Group commit: one thread, one connection, one transaction for all that waits.

The loop gathers operations and hands them to the thread: those of one turn at once while
commits are rare, those of a few milliseconds while commits are frequent. A commit costs the
loop as much as several tokens do, so under load fewer of them carry more.
"""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from collections.abc import Callable
from dataclasses import dataclass
from queue import SimpleQueue
from threading import Thread
from typing import Any, Protocol, TypeVar

from polos_client.errors import StoreUnavailable
from polos_service.store.sqlite.spool import Spool

T = TypeVar("T")

GONE = "The store's writing thread has ended. Restart the service."
"""What every caller is told when nothing can be committed any more."""

WINDOW = 0.05
"""Seconds over which operations are counted to see how frequent they are."""

DISTANCE_EACH = 10e-6
"""Seconds of distance between two commits for each operation in the last WINDOW: 1.25 ms at 2,500
operations a second, and not noticeable at 100 a second."""

MAX_DISTANCE = 6e-3
"""Seconds between the beginnings of two commits beyond which none is held back."""


class Guard(Protocol):
    """Says whether commits are kept, and whether the store is still ours."""

    def require(self) -> None:
        """Raise StoreUnavailable if the store cannot be used, as far as is known."""
        ...

    def inspect(self) -> None:
        """Look at the files; raise StoreUnavailable if what was committed is lost."""
        ...

    def require_owner(self, db: sqlite3.Connection) -> None:
        """Raise StoreUnavailable if another process owns the store. Called in a transaction."""
        ...

    def explain(self, error: sqlite3.Error) -> StoreUnavailable:
        """Take note of an error of SQLite, and return what its caller is told."""
        ...


@dataclass(slots=True, eq=False)
class Job:
    """An operation that waits to be committed; `spools` says that it only adds to the spool."""

    operation: Callable[[sqlite3.Connection], Any]
    future: asyncio.Future[Any]
    committed: Callable[[Any], None] | None
    spools: bool
    result: Any = None
    error: Exception | None = None

    def perform(self, db: sqlite3.Connection) -> None:
        """Run the operation in the open transaction."""
        self.result = self.operation(db)

    def answer(self) -> None:
        """Resolve the future. It is resolved even if `committed` raises."""
        try:
            if self.error is None and self.committed is not None:
                self.committed(self.result)
        finally:
            if not self.future.done():
                if self.error is not None:
                    self.future.set_exception(self.error)
                else:
                    self.future.set_result(self.result)


class Pace:
    """How far commits are apart: the more operations come, the farther."""

    def __init__(self) -> None:
        self._counted = 0
        self._since = 0.0
        self._begun = 0.0
        self._distance = 0.0

    def wait(self, now: float) -> float:
        """Return the seconds until the next commit may begin; 0 or less: now."""
        return self._begun + self._distance - now

    def begin(self, now: float, operations: int) -> None:
        """Note that a commit of so many operations begins."""
        self._begun = now
        self._counted += operations
        if now - self._since >= WINDOW:
            rate = self._counted / (now - self._since)
            self._distance = min(MAX_DISTANCE, rate * WINDOW * DISTANCE_EACH)
            self._counted, self._since = 0, now


class Committer:
    """Runs operations in the order in which they were submitted.

    An operation that raises is rolled back alone: the other operations of its batch run
    again one by one. So an operation may run twice, but it commits at most once. Every
    future is resolved, whatever an operation or a callback raises.
    """

    def __init__(self, db: sqlite3.Connection, guard: Guard, spool: Spool) -> None:
        self._db = db
        self._guard = guard
        self._spool = spool
        self._loop = asyncio.get_running_loop()
        self._closed = False
        self._ended = False
        self._pace = Pace()
        self._waiting: list[Job] = []
        self._committing: list[Job] = []
        self._batches: SimpleQueue[list[Job] | None] = SimpleQueue()
        self._due: asyncio.Handle | None = None
        self._idle = asyncio.Event()
        self._left = asyncio.Event()
        self._thread = Thread(target=self._run, name="polos-commit", daemon=True)
        self._thread.start()

    @property
    def working(self) -> bool:
        """Whether operations that are submitted now will be committed."""
        return not (self._closed or self._ended)

    def submit(
        self,
        operation: Callable[[sqlite3.Connection], T],
        committed: Callable[[T], None] | None = None,
        *,
        spools: bool = False,
    ) -> asyncio.Future[T]:
        """Queue an operation; the future is resolved when its transaction is durable.

        Args:
            operation: what is committed.
            committed: called with the result in the loop right after the commit, even if nobody
                awaits the future any more: a wake-up must not depend on the caller's patience.
            spools: whether the operation writes nothing itself, and only adds to the spool.

        Raises:
            StoreUnavailable: the store is closed, or its thread has ended.

        """
        if self._closed:
            raise StoreUnavailable("The store is closed.")
        if self._ended:
            raise StoreUnavailable(GONE)
        future: asyncio.Future[T] = self._loop.create_future()
        self._waiting.append(Job(operation, future, committed, spools))
        self._schedule()
        return future

    async def close(self) -> None:
        """Commit everything that was submitted, then end the thread."""
        self._closed = True
        while self._waiting or self._committing:
            self._idle.clear()
            await self._idle.wait()
        self._batches.put(None)
        # Not in a thread of the loop's pool, which tools may have filled.
        await self._left.wait()
        self._thread.join()

    def _schedule(self) -> None:
        """Hand over what waits when its time has come, unless a commit is under way."""
        if self._committing or self._due is not None:
            return
        wait = self._pace.wait(self._loop.time())
        if wait > 0:
            self._due = self._loop.call_later(wait, self._hand_over)
        else:
            self._due = self._loop.call_soon(self._hand_over)

    def _hand_over(self) -> None:
        self._due = None
        self._committing, self._waiting = self._waiting, []
        self._pace.begin(self._loop.time(), len(self._committing))
        self._batches.put(self._committing)

    def _run(self) -> None:
        try:
            while (batch := self._batches.get()) is not None:
                self._commit(batch)
                self._tell(self._committed)
        finally:
            self._ended = True
            self._tell(self._gone)

    def _commit(self, batch: list[Job]) -> None:
        try:
            self._transact(batch)
        except BaseException as error:  # noqa: BLE001 - it is raised where it is awaited
            if len(batch) == 1:
                batch[0].error = self._explained(error)
                return
            for job in batch:
                self._commit([job])

    def _transact(self, batch: list[Job]) -> None:
        """Commit a batch; one that only spools is a single statement, and so is its transaction.

        After each statement the thread waits for the interpreter lock, which a busy loop gives
        up every few milliseconds.
        """
        self._guard.require()
        if self._db.in_transaction:  # the rollback of the one before failed
            self._db.execute("ROLLBACK")
        try:
            if not all(job.spools for job in batch):
                self._db.execute("BEGIN IMMEDIATE")
                self._guard.require_owner(self._db)
            for job in batch:
                job.perform(self._db)
            if not self._spool.write(self._db):
                self._guard.require_owner(self._db)
                told = "The store did not take what was written. Try again."
                raise StoreUnavailable(told)  # noqa: TRY301 - the transaction is undone below
            if self._db.in_transaction:
                self._db.execute("COMMIT")
        except BaseException:
            self._spool.undo()
            if self._db.in_transaction:  # SQLite ends it by itself on a full disk
                self._db.execute("ROLLBACK")
            raise
        self._spool.keep()

    def _tell(self, callback: Callable[[], None]) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits
            self._loop.call_soon_threadsafe(callback)

    def _committed(self) -> None:
        """Answer the batch that was committed, then turn to what waits."""
        batch, self._committing = self._committing, []
        try:
            self._guard.inspect()
        except Exception as error:  # noqa: BLE001 - the files were deleted, or whatever it is
            for job in batch:
                job.error = job.error or error
        try:
            self._deliver(batch)
        finally:
            if self._waiting:
                self._schedule()
            else:
                self._idle.set()

    def _gone(self) -> None:
        """Refuse what nobody will commit: a defect or a lack of memory has ended the thread."""
        if self._due is not None:
            self._due.cancel()
        left, self._committing, self._waiting = self._committing + self._waiting, [], []
        for job in left:
            job.error = StoreUnavailable(GONE)
        self._idle.set()
        self._left.set()
        self._deliver(left)

    def _deliver(self, batch: list[Job]) -> None:
        for place, job in enumerate(batch, 1):
            try:
                job.answer()
            except BaseException:
                self._loop.call_soon(self._deliver, batch[place:])
                raise  # to the loop, which logs it

    def _explained(self, error: BaseException) -> Exception:
        """Return an error that a future can hold, and that does not end the task that awaits it."""
        if isinstance(error, sqlite3.Error):
            return self._guard.explain(error)
        if isinstance(error, Exception) and not isinstance(error, StopIteration):
            return error
        told = StoreUnavailable(f"The operation was cut off: {type(error).__name__}.")
        told.__cause__ = error
        return told
