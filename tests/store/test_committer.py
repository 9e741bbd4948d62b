"""Whatever is raised around a commit, everybody else gets an answer, and the next one, too."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, NoReturn

import pytest

from polos_client.errors import StoreUnavailable
from polos_service.store.sqlite import SqliteStore
from tests.support.stores import new_run, settled, soon, until


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SqliteStore]:
    opened = await SqliteStore.open(tmp_path / "runs.db")
    yield opened
    await opened.close()


def raising(error: BaseException) -> Any:
    def operation(*_: Any) -> NoReturn:
        raise error

    return operation


def count(db: sqlite3.Connection) -> int:
    return int(db.execute("SELECT count(*) FROM runs").fetchone()[0])


class Batch:
    """Holds the thread in a transaction, so that what is submitted meanwhile is one batch."""

    def __init__(self, store: SqliteStore) -> None:
        self._entered, self._leave = threading.Event(), threading.Event()
        self._held = store._committer.submit(self._hold)

    async def __aenter__(self) -> None:
        await until(self._entered.is_set)

    async def __aexit__(self, *_: object) -> None:
        self._leave.set()
        await soon(self._held)

    def _hold(self, _: sqlite3.Connection) -> None:
        self._entered.set()
        assert self._leave.wait(20)


RAISED = [
    ValueError("no"),
    StopIteration(1),
    StopAsyncIteration(),
    KeyboardInterrupt(),
    SystemExit(3),
    GeneratorExit(),
    MemoryError(),
    asyncio.CancelledError(),
    RecursionError(),
]


@pytest.mark.parametrize("error", RAISED, ids=lambda error: type(error).__name__)
async def test_what_an_operation_raises_harms_nobody_else(
    store: SqliteStore, error: BaseException
) -> None:
    async with Batch(store):
        before = store._committer.submit(count)
        bad = store._committer.submit(raising(error))
        after = store._committer.submit(count)
    assert [await soon(one) for one in (before, after)] == [0, 0]
    expected = type(error) if isinstance(error, Exception) else StoreUnavailable
    expected = StoreUnavailable if isinstance(error, StopIteration) else expected
    with pytest.raises(expected):
        await soon(bad)
    await soon(store.create(new_run()))
    assert await store.healthy()


@pytest.mark.parametrize("error", [ValueError("no"), StopIteration(), asyncio.CancelledError()])
async def test_what_a_callback_raises_loses_no_answer(
    store: SqliteStore, error: BaseException
) -> None:
    told: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: told.append(context))
    called: list[int] = []
    async with Batch(store):
        before = store._committer.submit(count, lambda _: called.append(1))
        bad = store._committer.submit(count, raising(error))
        after = store._committer.submit(count, lambda _: called.append(2))
    assert [await soon(one) for one in (before, bad, after)] == [0, 0, 0]
    assert called == [1, 2]
    assert len(told) == 1, "the loop tells it"


async def test_a_rollback_that_fails_blocks_nobody(store: SqliteStore) -> None:
    class NoRollback:
        def __init__(self, db: sqlite3.Connection) -> None:
            self._db, self.failed = db, False

        in_transaction = property(lambda self: self._db.in_transaction)

        def execute(self, statement: str, *values: Any) -> sqlite3.Cursor:
            if statement == "ROLLBACK" and not self.failed:
                self.failed = True
                raise sqlite3.OperationalError("no memory")
            return self._db.execute(statement, *values)

    store._committer._db = NoRollback(store._db)  # type: ignore[assignment]
    with pytest.raises(StoreUnavailable, match="no memory"):
        await soon(store._committer.submit(raising(ValueError())))
    await soon(store.create(new_run()))


async def test_a_thread_that_dies_leaves_no_future_behind(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    died: list[Any] = []
    monkeypatch.setattr(threading, "excepthook", died.append)
    async with Batch(store):
        futures = [store._committer.submit(count) for _ in range(3)]
        monkeypatch.setattr(store._committer, "_commit", raising(MemoryError()))
        more = store._committer.submit(count)
    for future in (*futures, more):
        with pytest.raises(StoreUnavailable, match="writing thread has ended"):
            await soon(future)
    await until(lambda: not store._committer._thread.is_alive())
    assert len(died) == 1
    with pytest.raises(StoreUnavailable, match="Restart the service"):
        await store.create(new_run())
    assert not await store.healthy()


async def test_what_is_submitted_after_the_thread_died_unnoticed_is_refused(
    store: SqliteStore,
) -> None:
    committer = store._committer
    committer._batches.put(None)  # it ends, and the loop has not heard of it yet
    committer._thread.join(20)
    committer._ended = False
    with pytest.raises(StoreUnavailable, match="writing thread has ended"):
        await soon(committer.submit(count))


async def test_a_closed_store_is_not_healthy(tmp_path: Path) -> None:
    store = await SqliteStore.open(tmp_path / "runs.db")
    await store.close()
    assert not await store.healthy()
    await settled()
