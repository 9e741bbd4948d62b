"""A read of the SQLite store sees one state of the file, whatever is committed meanwhile."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from polos_client.errors import RunExpired, RunNotFound
from polos_service.store import Claim
from polos_service.store.sqlite import SqliteStore
from tests.support.stores import ALL, COMPLETED, PATIENCE, claimed, ended, frame, soon

Change = Callable[[SqliteStore, Claim], Awaitable[object]]
Read = Callable[[SqliteStore, Claim], Awaitable[object]]


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SqliteStore]:
    opened = await SqliteStore.open(tmp_path / "runs.db")
    yield opened
    await opened.close()


class CommitDuringRead:
    """Has what was submitted committed before the reader's statement of this number begins."""

    def __init__(self, store: SqliteStore, statement: int) -> None:
        self._left = statement
        self._allowed = threading.Event()
        self._committed = threading.Event()
        self._reader = store._reader
        committer, tell = store._committer, store._committer._tell

        def told(callback: Callable[[], None]) -> None:
            self._committed.set()
            tell(callback)

        committer._tell = told  # type: ignore[method-assign]
        # Last in the batch of what was submitted before: it holds the commit back.
        committer.submit(lambda _: self._allowed.wait(PATIENCE))

    def begin(self) -> None:
        self._reader.set_trace_callback(self._statement)

    def end(self) -> None:
        self._reader.set_trace_callback(None)
        self._allowed.set()

    def _statement(self, _: str) -> None:
        self._left -= 1
        if self._left < 0:
            self._allowed.set()
            assert self._committed.wait(PATIENCE)


async def read_at_the_end(store: SqliteStore, claim: Claim) -> None:
    found = await store.read("default", claim.run_id, 3, ALL)
    assert [one.first for one in found.frames] in ([], [4])
    assert found.latest in (3, 4)


async def read_all(store: SqliteStore, claim: Claim) -> None:
    found = await store.read("default", claim.run_id, 0, ALL)
    assert (found.frames[0].first, found.frames[-1].last) == (1, found.latest)


async def get(store: SqliteStore, claim: Claim) -> None:
    assert (await store.get("default", claim.run_id)).latest in (1, 3, 4)


async def append_the_last(store: SqliteStore, claim: Claim) -> None:
    await store.append(claim, frame(4, outcome=COMPLETED))


async def append_a_large_one(store: SqliteStore, claim: Claim) -> None:
    await store.append(claim, frame(4, data=b"x" * 100_000))


async def delete(store: SqliteStore, claim: Claim) -> None:
    await store.delete("default", claim.run_id)


async def expire(store: SqliteStore, _: Claim) -> None:
    await store.expire(time.time_ns() + 10**12)


async def during(store: SqliteStore, claim: Claim, change: Change, read: Read, number: int) -> None:
    changing = asyncio.ensure_future(change(store, claim))
    while not store._committer._waiting:
        await asyncio.sleep(0)
    commit = CommitDuringRead(store, number)
    while not store._committer._committing:
        await asyncio.sleep(0)
    commit.begin()
    try:
        await read(store, claim)
    finally:
        commit.end()
        await soon(changing)
        assert store._condition.trouble is None


@pytest.mark.parametrize("number", range(4))
@pytest.mark.parametrize("read", [read_at_the_end, get])
@pytest.mark.parametrize("change", [append_the_last, append_a_large_one])
async def test_a_log_that_grows_during_a_read_is_whole(
    store: SqliteStore, change: Change, read: Read, number: int
) -> None:
    claim = await claimed(store)
    await store.append(claim, frame(1, 3))
    await during(store, claim, change, read, number)


@pytest.mark.parametrize("number", range(4))
@pytest.mark.parametrize("read", [read_all, get])
@pytest.mark.parametrize("change", [delete, expire])
async def test_a_run_that_is_removed_during_a_read_is_there_or_not(
    store: SqliteStore, change: Change, read: Read, number: int
) -> None:
    claim = await ended(store)
    try:
        await during(store, claim, change, read, number)
    except (RunNotFound, RunExpired):
        assert number < 2, "whatever is committed after the read has begun is not seen"
