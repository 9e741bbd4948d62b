"""Group commit: one thread, one connection, one transaction for all that waits."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from collections.abc import Callable
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from threading import Thread
from typing import Any, Protocol, TypeVar

from polos_client.errors import StoreUnavailable

T = TypeVar("T")

GONE = "The store's writing thread has ended. Restart the service."
"""What every caller is told when nothing can be committed any more."""


class Guard(Protocol):
    """Says whether commits are kept, and whether the store is still ours."""

    def require(self) -> None:
        """Raise StoreUnavailable if a commit would be lost, or the last one was."""
        ...

    def require_owner(self, db: sqlite3.Connection) -> None:
        """Raise StoreUnavailable if another process owns the store. Called in a transaction."""
        ...


@dataclass(slots=True, eq=False)
class Job:
    """An operation that waits to be committed."""

    operation: Callable[[sqlite3.Connection], Any]
    future: asyncio.Future[Any]
    committed: Callable[[], None] | None
    result: Any = None
    error: Exception | None = None

    def perform(self, db: sqlite3.Connection) -> None:
        """Run the operation in the open transaction."""
        self.result = self.operation(db)

    def answer(self) -> None:
        """Resolve the future. It is resolved even if `committed` raises."""
        try:
            if self.error is None and self.committed is not None:
                self.committed()
        finally:
            if self.future.done():
                pass
            elif self.error is not None:
                self.future.set_exception(self.error)
            else:
                self.future.set_result(self.result)


class Committer:
    """Runs operations in the order in which they were submitted.

    An operation that raises is rolled back alone: the other operations of its batch run
    again one by one. So an operation may run twice, but it commits at most once. Every
    future is resolved, whatever an operation or a callback raises.
    """

    def __init__(self, db: sqlite3.Connection, guard: Guard) -> None:
        self._db = db
        self._guard = guard
        self._loop = asyncio.get_running_loop()
        self._closed = False
        self._ended = False
        self._queue: SimpleQueue[Job | None] = SimpleQueue()
        self._thread = Thread(target=self._run, name="polos-commit", daemon=True)
        self._thread.start()

    @property
    def working(self) -> bool:
        """Whether operations that are submitted now will be committed."""
        return not (self._closed or self._ended)

    def submit(
        self,
        operation: Callable[[sqlite3.Connection], T],
        committed: Callable[[], None] | None = None,
    ) -> asyncio.Future[T]:
        """Queue an operation; the future is resolved when its transaction is durable.

        `committed` is called in the loop right after the commit, even if nobody awaits the
        future any more: a wake-up must not depend on the caller's patience.

        Raises:
            StoreUnavailable: the store is closed, or its thread has ended.

        """
        if self._closed:
            raise StoreUnavailable("The store is closed.")
        if self._ended:
            raise StoreUnavailable(GONE)
        future: asyncio.Future[T] = self._loop.create_future()
        self._queue.put(Job(operation, future, committed))
        if self._ended:  # it ended in between, and may have missed this one
            self._refuse(self._left())
        return future

    async def close(self) -> None:
        """Commit everything that was submitted, then end the thread."""
        self._closed = True
        self._queue.put(None)
        await asyncio.to_thread(self._thread.join)

    def _run(self) -> None:
        batch: list[Job] = []
        try:
            while batch := self._take():
                self._commit(batch)
                self._answer(batch)
                batch = []
        finally:
            # Only a defect or a lack of memory leaves jobs here: they are refused, not forgotten.
            self._ended = True
            self._refuse(batch + self._left())

    def _take(self) -> list[Job]:
        batch = []
        with contextlib.suppress(Empty):
            job = self._queue.get()
            while job is not None:
                batch.append(job)
                job = self._queue.get_nowait()
            if batch:  # the end was asked for behind these: come back for it
                self._queue.put(None)
        return batch

    def _left(self) -> list[Job]:
        left = []
        with contextlib.suppress(Empty):
            while True:
                job = self._queue.get_nowait()
                if job is not None:
                    left.append(job)
        return left

    def _commit(self, batch: list[Job]) -> None:
        try:
            self._transact(batch)
        except BaseException as error:  # noqa: BLE001 - it is raised where it is awaited
            if len(batch) == 1:
                batch[0].error = awaitable(error)
                return
            for job in batch:
                self._commit([job])

    def _transact(self, batch: list[Job]) -> None:
        self._guard.require()
        if self._db.in_transaction:  # the rollback of the one before failed
            self._db.execute("ROLLBACK")
        self._db.execute("BEGIN IMMEDIATE")
        try:
            self._guard.require_owner(self._db)
            for job in batch:
                job.perform(self._db)
            self._db.execute("COMMIT")
        except BaseException:
            if self._db.in_transaction:  # SQLite ends it by itself on a full disk
                self._db.execute("ROLLBACK")
            raise
        self._guard.require()  # a commit into files that were deleted meanwhile is lost

    def _answer(self, batch: list[Job]) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits
            self._loop.call_soon_threadsafe(self._deliver, batch)

    def _refuse(self, jobs: list[Job]) -> None:
        for job in jobs:
            job.error = StoreUnavailable(GONE)
        if jobs:
            self._answer(jobs)

    def _deliver(self, batch: list[Job]) -> None:
        for place, job in enumerate(batch, 1):
            try:
                job.answer()
            except BaseException:
                self._loop.call_soon(self._deliver, batch[place:])
                raise  # to the loop, which logs it


def awaitable(error: BaseException) -> Exception:
    """Return an error that a future can hold, and that does not end the task that awaits it."""
    if isinstance(error, Exception) and not isinstance(error, StopIteration):
        return error
    told = StoreUnavailable(f"The operation was cut off: {type(error).__name__}.")
    told.__cause__ = error
    return told
