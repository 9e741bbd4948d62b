"""Deleted runs: gone for everybody at once, and from the file piece by piece."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from polos_client.errors import RunNotFound
from polos_service.store import Command, RunQuery
from polos_service.store.sqlite import SqliteStore, removal, spool
from tests.support.stores import (
    COMPLETED,
    cancel,
    claimed,
    frame,
    new_run,
    soon,
    until,
)


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SqliteStore]:
    opened = await SqliteStore.open(tmp_path / "runs.db")
    yield opened
    await opened.close()


@pytest.fixture(autouse=True)
def _a_row_for_each_frame(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spool, "LARGE", 0)


async def long(store: SqliteStore, frames: int = 3 * removal.PIECE, **fields: str) -> str:
    """Store a run of many frames that has ended."""
    claim = await claimed(store, **fields)
    appends = [store.append(claim, frame(number)) for number in range(1, frames)]
    await asyncio.gather(*appends)
    await store.append(claim, frame(frames, outcome=COMPLETED))
    return claim.run_id


def left(path: Path) -> tuple[int, int, int]:
    """Return how many runs, frames and commands the file holds."""
    with contextlib.closing(sqlite3.connect(path)) as db:
        counts = (f"(SELECT count(*) FROM {table})" for table in ("runs", "frames", "inbox"))
        runs, frames, commands = db.execute(f"SELECT {', '.join(counts)}").fetchone()
        return runs, frames, commands


async def test_a_long_run_is_deleted_in_pieces_between_which_others_commit(
    store: SqliteStore, tmp_path: Path
) -> None:
    run_id = await long(store)
    deleting = asyncio.create_task(store.delete("default", run_id))
    seen: list[int] = []
    while not deleting.done():
        await store.create(new_run())
        seen.append(left(tmp_path / "runs.db")[1])
    await deleting
    assert len({count for count in seen if count}) >= 2, "it went in one commit"
    assert left(tmp_path / "runs.db")[1] == 0


async def test_a_run_that_is_being_deleted_is_gone_for_everybody(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_id = await long(store, request_id="r")
    monkeypatch.setattr(removal, "remove", lambda *_: True)  # it never comes to its end
    deleting = asyncio.create_task(store.delete("default", run_id))
    await until(lambda: removal.removals(store._reader) != [])
    for call in (
        store.get("default", run_id),
        store.read("default", run_id, 0, 1),
        store.wait("default", run_id, 0),
        store.delete("default", run_id),
        store.command("default", run_id, cancel(run_id)),
    ):
        with pytest.raises(RunNotFound):
            await call
    assert await store.list("default", RunQuery(limit=10)) == []
    assert await store.claim_run("default", run_id, force=True) is None
    assert not await store.expire(1 << 62)
    again = new_run(request_id="r", digest=b"another")
    assert await store.create(again) == again.run_id
    monkeypatch.undo()
    await soon(deleting)


async def test_a_deletion_whose_caller_went_away_is_finished(
    store: SqliteStore, tmp_path: Path
) -> None:
    run_id = await long(store)
    deleting = asyncio.create_task(store.delete("default", run_id))
    await asyncio.sleep(0)
    deleting.cancel()
    await until(lambda: left(tmp_path / "runs.db") == (0, 0, 0))


async def test_a_deletion_that_a_crash_cut_off_is_finished_by_the_next(tmp_path: Path) -> None:
    path = tmp_path / "runs.db"
    store = await SqliteStore.open(path)
    run_id = await long(store)
    await store._committer.submit(lambda db: removal.begin_removal(db, "default", run_id))
    await store.close()
    store = await SqliteStore.open(path)
    await until(lambda: left(path) == (0, 0, 0))
    await store.close()


@pytest.fixture
async def commits(store: SqliteStore) -> AsyncIterator[list[str]]:
    """Give the commits of a store from now on."""
    seen: list[str] = []

    def note(statement: str) -> None:
        if statement.startswith("COMMIT"):
            seen.append(statement)

    store._db.set_trace_callback(note)
    yield seen
    store._db.set_trace_callback(None)


async def test_a_piece_is_bounded_in_bytes_too(
    store: SqliteStore, tmp_path: Path, commits: list[str]
) -> None:
    claim = await claimed(store)
    for number in range(1, 7):
        outcome = COMPLETED if number == 6 else None
        await store.append(claim, frame(number, data=b"x" * 500_000, outcome=outcome))
    commits.clear()
    await store.delete("default", claim.run_id)
    assert len(commits) >= 2
    assert left(tmp_path / "runs.db") == (0, 0, 0)


@pytest.mark.parametrize("way", ["delete", "expire"])
async def test_a_full_inbox_goes_in_pieces_too(
    store: SqliteStore, tmp_path: Path, commits: list[str], way: str
) -> None:
    claim, other = await claimed(store), await claimed(store)
    for number in range(6):
        command = Command(
            id=f"{number}", kind="note", run_id=claim.run_id, payload=b"x" * 480 * 1024
        )
        await store.command("default", claim.run_id, command)
    await store.command("default", other.run_id, cancel(other.run_id))
    await store.append(claim, frame(1, outcome=COMPLETED))
    commits.clear()
    if way == "delete":
        await store.delete("default", claim.run_id)
    while await store.expire(1 << 62):
        pass
    assert len(commits) >= 3
    assert left(tmp_path / "runs.db") == (1 if way == "delete" else 2, 1, 1)


async def test_a_tombstone_has_no_input(store: SqliteStore) -> None:
    claim = await claimed(store, input_preview="secret words", definition=b"secret words")
    await store.append(claim, frame(1, outcome=COMPLETED))
    while await store.expire(time.time_ns()):
        pass
    assert store._reader.execute("SELECT input_preview, definition FROM runs").fetchall() == [
        ("", b"")
    ]
