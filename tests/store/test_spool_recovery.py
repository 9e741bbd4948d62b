"""What a process leaves in the spool of the SQLite store, and what the next one makes of it."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from polos_service.errors import Fenced
from polos_service.runs.journals import Journals
from polos_service.store import Claim
from polos_service.store.sqlite import SqliteStore
from polos_service.store.sqlite.spool import recover, spooled_frames
from tests.support.spool import after_a_crash, crashed, fill, in_file, numbers, read
from tests.support.stores import COMPLETED, claimed, ended, frame, history, new_run


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SqliteStore]:
    opened = await SqliteStore.open(tmp_path / "runs.db")
    yield opened
    await opened.close()


async def test_what_is_in_the_spool_survives_a_crash(store: SqliteStore, tmp_path: Path) -> None:
    claims = [await claimed(store) for _ in range(3)]
    for last, old in enumerate(claims, 2):
        await fill(store, old, 1, last)
    next_one = await after_a_crash(store, tmp_path / "next")
    assert in_file(next_one) == (3, 0)
    for last, old in enumerate(claims, 2):
        new = await next_one.claim_run("default", old.run_id)
        assert new is not None
        assert new.latest == last
        entries = await history(next_one, new)
        assert b"".join(one.data for one in entries) == numbers(1, last)
        assert [one.private for one in entries][1] == numbers(1, last, "p")
        assert b'"claim"' in entries[0].private, "the order of the log is that of its events"
        assert b'"claim"' in entries[-1].private
        with pytest.raises(Fenced):
            await next_one.append(old, frame(last + 1))
    await next_one.close()


async def test_a_store_that_is_closed_leaves_an_empty_spool(tmp_path: Path) -> None:
    store = await SqliteStore.open(tmp_path / "runs.db")
    claim = await claimed(store)
    await fill(store, claim, 1, 3)
    await store.close()
    with contextlib.closing(sqlite3.connect(tmp_path / "runs.db")) as db:
        assert spooled_frames(db) == ({}, [])
        assert db.execute("SELECT data FROM frames WHERE last = 3").fetchone() == (numbers(1, 3),)


async def test_a_recovery_that_is_killed_is_begun_anew(store: SqliteStore, tmp_path: Path) -> None:
    claim = await claimed(store)
    await fill(store, claim, 1, 3)
    path = crashed(store, tmp_path / "next")
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute("BEGIN")
        recover(db)
    next_one = await SqliteStore.open(path)
    assert await read(next_one, claim) == numbers(1, 3)
    await next_one.close()


DAMAGE = [
    "UPDATE spool SET entries = zeroblob(length(entries)) WHERE id = 2",
    "UPDATE spool SET entries = x'' WHERE id = 2",
    "UPDATE spool SET entries = substr(entries, 1, length(entries) - 1) WHERE id = 2",
    "UPDATE spool SET entries = CAST(x'00' || substr(entries, 2) AS BLOB) WHERE id = 2",
]


@pytest.mark.parametrize("damage", DAMAGE)
async def test_a_damaged_row_ends_the_runs_that_were_held_and_no_others(
    store: SqliteStore, tmp_path: Path, damage: str
) -> None:
    over, claim, queued = await ended(store), await claimed(store), await store.create(new_run())
    await fill(store, claim, 1, 3)
    path = crashed(store, tmp_path / "next")
    with contextlib.closing(sqlite3.connect(path)) as db:
        db.execute(damage)
        db.commit()
    with capture_logs() as logs:
        next_one = await SqliteStore.open(path)
    (told,) = [one for one in logs if one["event"] == "store_spool_damaged"]
    assert (told["log_level"], told["rows"], told["runs"]) == ("error", [2], 1)
    assert await read(next_one, claim) == numbers(1, 1), "as far as nothing is missing"
    held, fine = [await next_one.claim_run("default", run_id) for run_id in (claim.run_id, queued)]
    assert held is not None
    assert fine is not None
    assert "rows [2] of the spool" in (await fold(next_one, held)).damage
    assert not (await fold(next_one, fine)).damage
    assert (await next_one.get("default", over.run_id)).state == COMPLETED
    assert await next_one.healthy()
    await next_one.close()


async def fold(store: SqliteStore, claim: Claim) -> Journals:
    entries = store.history(claim)

    async def marks() -> AsyncIterator[Any]:
        async for entry in entries:
            if not entry.data:
                yield entry

    return await Journals.load(claim.run_id, marks())
