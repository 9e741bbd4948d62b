"""Stored bytes in SQLite: the counter is the sum of what is there, whatever happens to runs."""

from __future__ import annotations

import contextlib
import shutil
import sqlite3
import time
from pathlib import Path

import pytest

from polos_client.errors import QuotaExceeded
from polos_service.quotas import Quota, Quotas
from polos_service.store.sqlite import SqliteStore
from polos_service.store.sqlite.schema import EIGHTH
from tests.support.stores import COMPLETED, claimed, frame, new_run

STORED = "SELECT coalesce(sum(stored), 0) FROM usage"

THERE = """
SELECT (SELECT coalesce(sum(length(definition)), 0) FROM runs)
    + (SELECT coalesce(sum(length(data) + length(private)), 0) FROM frames WHERE length(data) > 0)
"""


def numbers(path: Path) -> tuple[int, int]:
    """Return the counter and what is there."""
    with contextlib.closing(sqlite3.connect(path)) as db:
        return db.execute(STORED).fetchone()[0], db.execute(THERE).fetchone()[0]


async def filled(path: Path) -> SqliteStore:
    """Return a store with runs of two projects: one has ended, one is held, one is queued."""
    store = await SqliteStore.open(path)
    for project in ("a", "b"):
        done = await claimed(store, project=project, definition=b"d" * 100)
        for at in range(1, 50):
            await store.append(done, frame(at, data=b"e" * 500), b"private")
        await store.append(done, frame(50, data=b"e" * 20_000))
        await store.append(done, frame(51, outcome=COMPLETED))
        held = await claimed(store, project=project, definition=b"d" * 10)
        await store.append(held, frame(1, data=b"e" * 500), b"private")
        await store.create(new_run(project=project, definition=b"d" * 1000))
    return store


async def test_the_counter_is_what_is_there_and_zero_when_nothing_is(tmp_path: Path) -> None:
    path = tmp_path / "runs.db"
    store = await filled(path)
    counted, there = numbers(path)
    assert counted == there > 2 * (49 * 507 + 20_000 + 1_110)
    with contextlib.closing(sqlite3.connect(path)) as db:
        ended = db.execute("SELECT project, run_id FROM runs WHERE state > 2").fetchall()
    for project, run_id in ended:
        await store.delete(project, run_id)
    counted, there = numbers(path)
    assert counted == there < 3_000
    await store.close()
    store = await SqliteStore.open(path)  # what was held is queued again
    for claim in await store.claim(["agent"], 10):
        await store.append(claim, frame(claim.latest + 1, outcome=COMPLETED))
    while await store.expire(time.time_ns()):
        pass
    assert numbers(path) == (0, 0)
    await store.close()


async def test_a_crash_loses_nothing_of_the_counter(tmp_path: Path) -> None:
    path = tmp_path / "runs.db"
    store = await filled(path)
    (tmp_path / "next").mkdir()
    for name in ("runs.db", "runs.db-wal"):
        shutil.copy(tmp_path / name, tmp_path / "next" / name)
    await store.close()
    after = await SqliteStore.open(tmp_path / "next" / "runs.db")
    counted, there = numbers(tmp_path / "next" / "runs.db")
    assert counted == there > 0
    await after.close()


async def test_a_store_of_a_former_version_is_counted_when_it_is_opened(tmp_path: Path) -> None:
    path = tmp_path / "runs.db"
    await (await filled(path)).close()
    counted, there = numbers(path)
    with contextlib.closing(sqlite3.connect(path)) as db:
        db.executescript(f"DROP TABLE usage; {EIGHTH}")
    assert numbers(path) == (counted, there) == (there, there)


async def test_a_lower_limit_leaves_queued_runs_and_refuses_further_ones(tmp_path: Path) -> None:
    path = tmp_path / "runs.db"
    store = await SqliteStore.open(path)
    for _ in range(3):
        await store.create(new_run())
    await store.close()
    store = await SqliteStore.open(path, quotas=Quotas({"*": Quota(queued=2, runs=1)}))
    for _ in range(2):
        (claim,) = await store.claim(["agent"], 16)
        with pytest.raises(QuotaExceeded) if _ == 0 else contextlib.nullcontext():
            await store.create(new_run())
        await store.append(claim, frame(1, outcome=COMPLETED))
    await store.close()


async def test_a_start_that_fails_is_not_counted(tmp_path: Path) -> None:
    store = await SqliteStore.open(
        tmp_path / "runs.db", quotas=Quotas({"*": Quota(starts_per_minute=1)})
    )
    run = new_run(run_id="same", project="p")
    await store.create(run)
    now = run.create_time + 60_000_000_000
    with pytest.raises(Exception, match="UNIQUE"):
        await store.create(new_run(run_id="same", project="p", create_time=now))
    assert await store.create(new_run(project="p", create_time=now))
    await store.close()
