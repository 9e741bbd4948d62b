"""The spool of the SQLite store: what was acknowledged is in the log, whenever it moves there."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import sqlite3
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from polos_client.errors import StoreUnavailable
from polos_service.errors import Fenced
from polos_service.runs.journal import Journals
from polos_service.store import Claim, RunQuery
from polos_service.store.sqlite import SqliteStore, spool
from polos_service.store.sqlite.spool import ROW_LIMIT, recover, spooled_frames
from tests.support.stores import (
    ALL,
    COMPLETED,
    claimed,
    ended,
    frame,
    history,
    new_run,
    soon,
    spans,
    until,
)

ALL_RUNS = RunQuery(limit=10)


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SqliteStore]:
    opened = await SqliteStore.open(tmp_path / "runs.db")
    yield opened
    await opened.close()


async def fill(store: SqliteStore, claim: Claim, first: int, last: int) -> None:
    """Append frames of an event each; the data of each is its number and a comma."""
    for number in range(first, last + 1):
        await store.append(claim, frame(number, data=b"%d," % number), b"p%d," % number)


def numbers(first: int, last: int, letter: str = "") -> bytes:
    return "".join(f"{letter}{number}," for number in range(first, last + 1)).encode()


async def read(store: SqliteStore, claim: Claim, after: int = 0, limit: int = ALL) -> bytes:
    """Read slice by slice, and check that each begins where the last one ended."""
    data = b""
    while (part := await store.read("default", claim.run_id, after, limit)).frames:
        first = part.frames[0]
        data += first.data.split(b",", after + 1 - first.first)[-1]
        data += b"".join(one.data for one in part.frames[1:])
        for one, following in zip(part.frames, part.frames[1:], strict=False):
            assert one.last + 1 == following.first
        after = part.frames[-1].last
        assert after <= part.latest
    return data


def in_file(store: SqliteStore) -> tuple[int, int]:
    """Return how many rows of events and of the spool the file holds."""
    counts = "(SELECT count(*) FROM frames WHERE first <= last), (SELECT count(*) FROM spool)"
    events, spooled = store._reader.execute(f"SELECT {counts}").fetchone()
    return events, spooled


async def after_a_crash(store: SqliteStore, folder: Path) -> SqliteStore:
    """Open what a process leaves that is killed now."""
    return await SqliteStore.open(crashed(store, folder))


def crashed(store: SqliteStore, folder: Path) -> Path:
    folder.mkdir()
    for name in ("runs.db", "runs.db-wal"):
        shutil.copy(store._file.path.with_name(name), folder / name)
    return folder / "runs.db"


async def test_frames_of_all_runs_are_one_row_until_they_move(store: SqliteStore) -> None:
    claims = [await claimed(store) for _ in range(10)]
    await asyncio.gather(*(store.append(claim, frame(1, data=b"1,")) for claim in claims))
    assert in_file(store) == (0, 1)
    for claim in claims:
        await fill(store, claim, 2, 5)
    await soon(store._unspool_all())
    assert in_file(store) == (10, 0)
    for claim in claims:
        assert await read(store, claim) == numbers(1, 5)


async def test_a_row_of_the_log_is_no_larger_than_a_response(store: SqliteStore) -> None:
    claim = await claimed(store)
    for number in range(1, 21):
        await store.append(claim, frame(number, data=b"x" * 10_000))
    await soon(store._unspool_all())
    rows = store._reader.execute("SELECT first, last, length(data) FROM frames WHERE first <= last")
    found = rows.fetchall()
    assert [row[:2] for row in found] == [(1, 6), (7, 12), (13, 18), (19, 20)]
    assert max(row[2] for row in found) <= ROW_LIMIT


async def test_the_spool_is_emptied_at_its_bound(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spool, "SPOOL_LIMIT", 20_000)
    claims = [await claimed(store) for _ in range(5)]
    most = 0
    for number in range(1, 101):
        appends = (store.append(claim, frame(number, data=b"x" * 1000)) for claim in claims)
        await soon(asyncio.gather(*appends))
        (size,) = store._reader.execute(
            "SELECT coalesce(sum(length(entries)), 0) FROM spool"
        ).fetchone()
        most = max(most, size)
    assert 20_000 < most < 40_000
    for frames in store._tails._frames.values():
        assert len(frames) < 20, "what has moved is no longer in memory"


async def test_a_large_frame_is_written_once(store: SqliteStore) -> None:
    claim = await claimed(store)
    await fill(store, claim, 1, 2)
    large = b"x" * spool.LARGE
    await store.append(claim, frame(3, data=large))
    assert in_file(store)[0] == 2
    sizes = store._reader.execute("SELECT max(length(entries)) FROM spool").fetchone()
    assert sizes < (1000,)
    await fill(store, claim, 4, 4)
    found = await store.read("default", claim.run_id, 0, ALL)
    assert b"".join(one.data for one in found.frames) == b"1,2," + large + b"4,"


@pytest.mark.parametrize("cursor", range(11))
@pytest.mark.parametrize("limit", [1, 5, ALL])
async def test_a_reader_sees_the_same_before_during_and_after_a_move(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch, cursor: int, limit: int
) -> None:
    claim = await claimed(store)
    await fill(store, claim, 1, 4)
    assert await read(store, claim, min(cursor, 4), limit) == numbers(cursor + 1, 4)
    await soon(store._unspool_all())
    await fill(store, claim, 5, 7)
    news: list[Callable[[], None]] = []
    with monkeypatch.context() as patched:
        patched.setattr(store._committer, "_tell", news.append)
        moving = store._unspool_all()
        await until(lambda: len(news) == 1)
    assert in_file(store) == (2, 0)
    assert not moving.done(), "the loop has not heard of it"
    assert await read(store, claim, min(cursor, 7), limit) == numbers(cursor + 1, 7)
    news[0]()
    await soon(moving)
    await fill(store, claim, 8, 10)
    assert await read(store, claim, cursor, limit) == numbers(cursor + 1, 10)
    record = await store.get("default", claim.run_id)
    assert (record.latest, (await store.list("default", ALL_RUNS))[0].latest) == (10, 10)


async def test_a_run_that_is_seen_to_have_ended_has_its_last_event(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    claim = await claimed(store)
    await fill(store, claim, 1, 3)
    news: list[Callable[[], None]] = []
    with monkeypatch.context() as patched:
        patched.setattr(store._committer, "_tell", news.append)
        ending = store.append(claim, frame(4, data=b"4,", outcome=COMPLETED))
        await until(lambda: len(news) == 1)
    assert not ending.done(), "the loop has not heard of it"
    assert (await store.get("default", claim.run_id)).state == COMPLETED
    assert await read(store, claim) == numbers(1, 4)
    assert (await store.read("default", claim.run_id, 4, ALL)).ended
    news[0]()
    await soon(ending)
    assert await read(store, claim) == numbers(1, 4)


async def test_a_frame_that_is_missing_is_told_as_damage(store: SqliteStore) -> None:
    claim = await claimed(store)
    await fill(store, claim, 1, 3)
    del store._tails._frames["default", claim.run_id][0]
    with pytest.raises(StoreUnavailable, match="events after 0 are missing"):
        await store.read("default", claim.run_id, 0, ALL)


class FailingCommits:
    """Stands for the writing connection, whose next commits fail."""

    def __init__(self, store: SqliteStore, failures: int) -> None:
        self._db, self._left = store._db, failures
        store._committer._db = self  # type: ignore[assignment]

    in_transaction = property(lambda self: self._db.in_transaction)

    def execute(self, statement: str, *values: Any) -> sqlite3.Cursor:
        alone = statement.startswith("INSERT") and not self._db.in_transaction
        if (statement == "COMMIT" or alone) and self._left:
            self._left -= 1
            raise sqlite3.OperationalError("no room")
        return self._db.execute(statement, *values)


async def test_a_commit_that_fails_leaves_everything_as_it_was(
    store: SqliteStore, tmp_path: Path
) -> None:
    claim, other = await claimed(store), await claimed(store)
    await fill(store, claim, 1, 3)
    FailingCommits(store, 5)
    for work in (
        store.append(claim, frame(4, data=b"never,")),
        store._unspool_all(),
        store.append(claim, frame(4, data=b"never,", outcome=COMPLETED)),
        store.append(other, frame(1, data=b"never" * spool.LARGE)),
        store.release(claim),
    ):
        with pytest.raises(StoreUnavailable, match="no room"):
            await soon(work)
    await fill(store, claim, 4, 5)
    assert await read(store, claim) == numbers(1, 5)
    next_one = await after_a_crash(store, tmp_path / "next")
    assert await read(next_one, claim) == numbers(1, 5)
    assert not (await next_one.read("default", other.run_id, 0, ALL)).frames
    await next_one.close()


async def test_what_fails_in_a_batch_undoes_nothing_else(
    store: SqliteStore, tmp_path: Path
) -> None:
    claim, lost = await claimed(store), await claimed(store)
    await fill(store, claim, 1, 2)
    await fill(store, lost, 1, 2)
    work: list[Any] = [
        store.append(claim, frame(3, data=b"3,")),
        store._unspool_all(),
        store.append(claim, frame(4, data=b"4,")),
        asyncio.ensure_future(store.release(lost)),
        store.append(claim, frame(9, data=b"9,")),
        store.append(claim, frame(5, data=b"5,")),
    ]
    await asyncio.sleep(0)
    work.append(store.append(lost, frame(3, data=b"3,")))
    outcomes = await asyncio.gather(*work, return_exceptions=True)
    assert [type(one) for one in outcomes if one is not None] == [ValueError, Fenced]
    assert await read(store, claim) == numbers(1, 5)
    assert await read(store, lost) == numbers(1, 2)
    next_one = await after_a_crash(store, tmp_path / "next")
    assert await read(next_one, claim) == numbers(1, 5)
    await next_one.close()


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


async def release(store: SqliteStore, claim: Claim) -> None:
    await store.release(claim)


async def take(store: SqliteStore, claim: Claim) -> None:
    assert await store.claim_run("default", claim.run_id, force=True) is not None


async def end(store: SqliteStore, claim: Claim) -> None:
    await store.append(claim, frame(4, data=b"4,", outcome=COMPLETED))


@pytest.mark.parametrize("how", [release, take, end])
async def test_whoever_lets_a_run_go_leaves_a_whole_log(
    store: SqliteStore, tmp_path: Path, how: Callable[..., Any]
) -> None:
    claim, other = await claimed(store), await claimed(store)
    await fill(store, other, 1, 3)
    await fill(store, claim, 1, 3)
    await soon(how(store, claim))
    last = 4 if how is end else 3
    assert await read(store, claim) == numbers(1, last)
    assert ("default", claim.run_id) not in store._tails._frames
    with pytest.raises(Fenced):
        await store.append(claim, frame(last + 1))
    rows = store._reader.execute("SELECT first, last FROM frames ORDER BY last, id").fetchall()
    marks = {release: [(4, 3)], take: [(4, 3)], end: []}[how]
    logged = [(1, 3), *marks] if how is not end else [(1, 3), (4, 4)]
    assert [row for row in rows if row != (1, 0)] == logged
    next_one = await after_a_crash(store, tmp_path / "next")
    assert await read(next_one, claim) == numbers(1, last), "nothing moves twice"
    assert await read(next_one, other) == numbers(1, 3)
    await next_one.close()


async def test_a_release_of_a_lost_claim_hides_nothing_of_the_new_one(store: SqliteStore) -> None:
    old = await claimed(store)
    await fill(store, old, 1, 2)
    new = await store.claim_run("default", old.run_id, force=True)
    assert new is not None
    await fill(store, new, 3, 4)
    await store.release(old)
    assert await store.claim_run("default", old.run_id) is None
    assert await read(store, new) == numbers(1, 4)
    await fill(store, new, 5, 5)
    assert await read(store, new) == numbers(1, 5)


async def test_frames_of_a_deleted_run_do_not_come_back_in_one_with_its_row(
    store: SqliteStore, tmp_path: Path
) -> None:
    gone = await claimed(store)
    await fill(store, gone, 1, 3)
    await end(store, gone)
    await store.delete("default", gone.run_id)
    new = await claimed(store)
    rows = store._reader.execute("SELECT id FROM runs").fetchall()
    assert rows == [(1,)], "the row is not used again: this test tests nothing"
    assert in_file(store)[1] > 0
    next_one = await after_a_crash(store, tmp_path / "next")
    assert not (await next_one.read("default", new.run_id, 0, ALL)).frames
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


async def test_a_move_that_fails_is_tried_again(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spool, "SPOOL_LIMIT", 0)
    tries: list[int] = []
    move = spool.Spool.unspool_all

    def failing(self: spool.Spool, db: sqlite3.Connection) -> None:
        tries.append(1)
        if len(tries) < 3:
            raise sqlite3.OperationalError("no room")
        move(self, db)

    monkeypatch.setattr(spool.Spool, "unspool_all", failing)
    claim = await claimed(store)
    for number in range(1, 6):
        await fill(store, claim, number, number)
        moving = store._unspooling
        assert moving is not None
        await asyncio.wait({moving})
    assert len(tries) >= 3
    assert in_file(store)[0] >= 1
    assert await read(store, claim) == numbers(1, 5)
    assert await spans(store, claim)
