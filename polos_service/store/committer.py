"""Group commit: one thread, one connection, one transaction for all that waits."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from collections.abc import Callable
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from threading import Thread
from typing import Any, TypeVar

from polos_client.errors import StoreUnavailable

T = TypeVar("T")


@dataclass(slots=True, eq=False)
class Job:
    """An operation that waits for its commit."""

    operation: Callable[[sqlite3.Connection], Any]
    future: asyncio.Future[Any]
    committed: Callable[[], None] | None
    result: Any = None
    error: BaseException | None = None

    def perform(self, db: sqlite3.Connection) -> None:
        """Run the operation inside the transaction that is open."""
        self.result = self.operation(db)


class Committer:
    """Runs operations in the order in which they were submitted.

    An operation that raises is rolled back alone: the batch it came with is done again
    one by one, so an operation may run twice but commits at most once.
    """

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db
        self._loop = asyncio.get_running_loop()
        self._closed = False
        self._queue: SimpleQueue[Job | None] = SimpleQueue()
        self._thread = Thread(target=self._run, name="polos-commit", daemon=True)
        self._thread.start()

    def submit(
        self,
        operation: Callable[[sqlite3.Connection], T],
        committed: Callable[[], None] | None = None,
    ) -> asyncio.Future[T]:
        """Queue an operation; the future is done when its transaction is durable.

        `committed` is called in the loop right after that, even where nobody awaits
        the future any more: a wake-up must not depend on the writer's patience.

        Raises:
            StoreUnavailable: the store is closed.

        """
        if self._closed:
            raise StoreUnavailable("The store is closed.")
        future: asyncio.Future[T] = self._loop.create_future()
        self._queue.put(Job(operation, future, committed))
        return future

    async def close(self) -> None:
        """Commit what was submitted, then end the thread."""
        self._closed = True
        self._queue.put(None)
        await asyncio.to_thread(self._thread.join)

    def _run(self) -> None:
        while batch := self._take():
            self._commit(batch)
            self._loop.call_soon_threadsafe(self._deliver, batch)

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

    def _commit(self, batch: list[Job]) -> None:
        try:
            self._transact(batch)
        except Exception as error:  # noqa: BLE001 - it is raised where it is awaited
            if len(batch) == 1:
                batch[0].error = error
                return
            for job in batch:
                self._commit([job])

    def _transact(self, batch: list[Job]) -> None:
        self._db.execute("BEGIN IMMEDIATE")
        try:
            for job in batch:
                job.perform(self._db)
            self._db.execute("COMMIT")
        except BaseException:
            if self._db.in_transaction:  # SQLite ends it by itself on a full disk
                self._db.execute("ROLLBACK")
            raise

    def _deliver(self, batch: list[Job]) -> None:
        for job in batch:
            if job.error is None and job.committed is not None:
                job.committed()
            if job.future.done():
                continue
            if job.error is not None:
                job.future.set_exception(job.error)
            else:
                job.future.set_result(job.result)
