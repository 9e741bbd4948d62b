"""Branches of logs in SQLite: which rows a reader of one child gets, and where they come from."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from polos_client.errors import StoreUnavailable
from polos_service.store import Claim, Frame
from polos_service.store.sqlite import SqliteStore
from polos_service.store.sqlite.schema import MIGRATIONS, RUNNING
from polos_service.store.sqlite.spool import BRANCHED
from tests.support.spool import after_a_crash
from tests.support.stores import ALL, COMPLETED, claimed, frame, history, soon, until

CHILDREN = 50
ROUNDS = 10


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SqliteStore]:
    opened = await SqliteStore.open(tmp_path / "runs.db")
    yield opened
    await opened.close()


async def spread(store: SqliteStore, claim: Claim) -> int:
    """Write events of children in turn, the first ones with the numbers 1 to CHILDREN."""
    sequence = 0
    for _ in range(ROUNDS):
        for number in range(1, CHILDREN + 1):
            sequence += 1
            await store.append(
                claim,
                Frame(
                    first=sequence,
                    last=sequence,
                    data=b"x" * 1_000,
                    branches=frozenset({number}),
                ),
                b"p%d," % sequence,
            )
    return sequence


async def read(store: SqliteStore, claim: Claim, branch: int, after: int = 0) -> list[Frame]:
    return [*(await store.read("default", claim.run_id, after, ALL, branch)).frames]


def places(store: SqliteStore) -> int:
    (count,) = store._reader.execute("SELECT count(*) FROM branches").fetchone()
    return int(count)


async def test_a_child_among_many_costs_a_part_of_the_log(store: SqliteStore) -> None:
    claim = await claimed(store)
    last = await spread(store, claim)
    await soon(store._unspool_all())
    for number in (1, 11, CHILDREN):
        frames = await read(store, claim, number)
        own = {*range(number, last + 1, CHILDREN)}
        held = {one for frame in frames for one in range(frame.first, frame.last + 1)}
        assert held >= own
        assert sum(len(one.data) for one in frames) <= (ROUNDS + 1) * BRANCHED < last * 1_000 // 4
    private = b"".join(one.private for one in await history(store, claim) if one.data)
    assert private == b"".join(b"p%d," % number for number in range(1, last + 1))


async def test_frames_in_memory_are_left_out_as_well(store: SqliteStore) -> None:
    claim = await claimed(store)
    for number in range(1, 11):
        branches = None if number == 5 else frozenset({number % 2, 100})
        await store.append(claim, Frame(first=number, last=number, data=b"x", branches=branches))
    assert [one.last for one in await read(store, claim, 1)] == [1, 3, 5, 7, 9]
    assert [one.last for one in await read(store, claim, 0, 6)] == [8, 10]
    assert [one.last for one in await read(store, claim, 100)] == [*range(1, 11)]
    assert [one.last for one in await read(store, claim, 10)] == [5]


async def test_what_a_crash_left_in_the_spool_may_be_anybody_s(
    store: SqliteStore, tmp_path: Path
) -> None:
    claim = await claimed(store)
    await store.append(claim, Frame(first=1, last=1, data=b"a", branches=frozenset({1})))
    await soon(store._unspool_all())
    await store.append(claim, Frame(first=2, last=2, data=b"b", branches=frozenset({2})))
    await store.append(claim, Frame(first=3, last=3, data=b"c", branches=frozenset()))
    recovered = await after_a_crash(store, tmp_path / "crashed")
    assert [one.data for one in await read(recovered, claim, 1)] == [b"a", b"bc"]
    assert [one.data for one in await read(recovered, claim, 2)] == [b"bc"]
    await recovered.close()


async def test_a_run_without_children_has_no_places(store: SqliteStore) -> None:
    claim = await claimed(store)
    for number in range(1, 6):
        data = b"x" * (20_000 if number == 3 else 10)
        await store.append(claim, Frame(first=number, last=number, data=data, branches=frozenset()))
    end = Frame(first=6, last=6, data=b"x", outcome=COMPLETED, branches=frozenset())
    await store.append(claim, end)
    assert places(store) == 0
    assert [one.last for one in await read(store, claim, 3)] == [6], "the end is everybody's"


@pytest.mark.parametrize("how", ["deleted", "expired"])
async def test_a_run_that_is_removed_leaves_no_places(store: SqliteStore, how: str) -> None:
    claim, kept = await claimed(store), await claimed(store)
    last = await spread(store, claim)
    await store.append(kept, Frame(first=1, last=1, data=b"x", branches=frozenset({1})))
    await soon(store._unspool_all())
    await store.append(claim, frame(last + 1, outcome=COMPLETED))
    assert places(store) > 256
    if how == "deleted":
        await store.delete("default", claim.run_id)
    else:
        while await store.expire(1 << 62):
            pass
    await until(lambda: places(store) == 1)
    assert [one.data for one in await read(store, kept, 1)] == [b"x"]


async def test_a_row_that_is_lost_is_missed(store: SqliteStore) -> None:
    claim = await claimed(store)
    last = await spread(store, claim)
    await store.append(claim, frame(last + 1, outcome=COMPLETED))
    with contextlib.closing(sqlite3.connect(store._file.path)) as db:
        db.execute(
            "DELETE FROM frames WHERE last = (SELECT min(last) FROM frames WHERE first <= last)"
        )
        db.commit()
    with pytest.raises(StoreUnavailable, match="missing"):
        await read(store, claim, 1)


@pytest.mark.parametrize("version", range(1, len(MIGRATIONS)))
async def test_all_that_a_former_file_has_may_be_anybody_s(tmp_path: Path, version: int) -> None:
    path = tmp_path / "runs.db"
    with contextlib.closing(sqlite3.connect(path)) as db:
        for step in MIGRATIONS[:version]:
            db.executescript(step)
        db.execute(f"PRAGMA user_version = {version}")
        db.execute(
            "INSERT INTO runs (project, run_id, workflow_id, state, epoch, streaming, "
            "create_time, digest, definition) "
            f"VALUES ('default', 'old', 'agent', {RUNNING:d}, 1, 1, 1, x'', x'')"
        )
        (run,) = db.execute("SELECT id FROM runs").fetchone()
        rows = [(run, 1, 0, b""), (run, 1, 3, b"abc"), (run, 4, 3, b""), (run, 4, 6, b"def")]
        db.executemany(
            "INSERT INTO frames (run, first, last, data, private) VALUES (?, ?, ?, ?, x'')", rows
        )
        db.commit()
    store = await SqliteStore.open(path)
    claim = await store.claim_run("default", "old")
    assert claim is not None
    await store.append(claim, Frame(first=7, last=7, data=b"g", branches=frozenset({2})))
    await store.append(claim, Frame(first=8, last=8, data=b"h", branches=frozenset({5})))
    for _ in range(2):
        assert [one.data for one in await read(store, claim, 2)] in (
            [b"abc", b"def", b"g"],
            [b"abc", b"def", b"gh"],
        )
        await soon(store._unspool_all())
    await store.close()
