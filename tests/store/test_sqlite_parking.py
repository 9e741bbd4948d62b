"""Suspended runs and open waits in SQLite: crashes, clocks, failures, and what they cost."""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from polos.v1.run_pb2 import RunState
from polos_client.errors import RunNotFinished, StoreUnavailable
from polos_service.store import PARKED, Claim, Command, WaitRecord
from polos_service.store.sqlite import SqliteStore, parking
from polos_service.store.sqlite.schema import SUSPENDED
from tests.support.spool import after_a_crash, fill, in_file, numbers, read
from tests.support.stores import (
    COMPLETED,
    cancel,
    claimed,
    first_claim,
    frame,
    history,
    new_run,
    soon,
    until,
)

CLOCK = "polos_service.store.sqlite.parking.time_ns"

SECOND = 1_000_000_000

HOUR = 3600 * SECOND

STEPS = 500
"""Steps of SQLite that a look at an index takes at most, however many rows there are."""


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SqliteStore]:
    opened = await SqliteStore.open(tmp_path / "runs.db", "NORMAL")
    yield opened
    await opened.close()


async def park(store: SqliteStore, claim: Claim, wake_at: int | None) -> None:
    assert await store.suspend(claim, wake_at=wake_at, seen=0, deadline=claim.deadline)


async def parked(store: SqliteStore, wake_at: int | None) -> Claim:
    claim = await claimed(store)
    await park(store, claim, wake_at)
    return claim


async def state(store: SqliteStore, claim: Claim) -> int:
    return (await store.get("default", claim.run_id)).state


async def test_what_was_spooled_stands_before_the_mark_of_the_park(
    store: SqliteStore, tmp_path: Path
) -> None:
    claim = await claimed(store)
    await fill(store, claim, 1, 5)
    assert in_file(store)[0] == 0, "the events are in the spool"
    await park(store, claim, None)
    assert await read(store, claim) == numbers(1, 5)
    next_one = await after_a_crash(store, tmp_path / "next")
    try:
        assert await state(next_one, claim) == RunState.RUN_STATE_SUSPENDED
        await next_one.command("default", claim.run_id, cancel(claim.run_id))
        woken = await next_one.claim_run("default", claim.run_id)
        assert woken is not None
        assert woken.latest == 5
        entries = await history(next_one, woken)
        assert b"".join(one.data for one in entries) == numbers(1, 5)
        marks = [line for one in entries for line in one.private.split(b"\n") if b"{" in line]
        assert [list(json.loads(mark)) for mark in marks] == [["claim"], ["released"], ["claim"]]
        assert json.loads(marks[1])["released"] == {"epoch": 1, PARKED: True}
    finally:
        await next_one.close()


async def test_a_crash_loses_neither_times_nor_commands(store: SqliteStore, tmp_path: Path) -> None:
    timed = await parked(store, time.time_ns() + SECOND // 2)
    asked = await parked(store, None)
    held = await claimed(store)
    note = Command(id="1", kind="note", run_id=asked.run_id)
    await store.command("default", asked.run_id, note)
    next_one = await after_a_crash(store, tmp_path / "next")
    try:
        found = [await soon(first_claim(next_one, {"agent"})) for _ in range(3)]
        assert {one.run_id for one in found} == {timed.run_id, asked.run_id, held.run_id}
        assert [one.commands for one in found if one.run_id == asked.run_id] == [(note,)]
    finally:
        await next_one.close()


async def test_a_park_that_is_not_committed_leaves_the_run_held(store: SqliteStore) -> None:
    claim = await claimed(store)
    await fill(store, claim, 1, 3)

    def fail(db: sqlite3.Connection) -> None:
        parking.suspend(db, store._spool, claim, wake_at=None, seen=0, deadline=None)
        raise ValueError("no room")

    with pytest.raises(ValueError, match="no room"):
        await store._committer.submit(fail)
    await fill(store, claim, 4, 5)
    await store.append(claim, frame(6, data=b"6,", outcome=COMPLETED))
    assert await read(store, claim) == numbers(1, 6)


async def test_a_clock_that_is_set_forward_wakes_runs(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    claim = await parked(store, time.time_ns() + HOUR)
    monkeypatch.setattr(CLOCK, lambda: time.time_ns() + HOUR)
    assert (await soon(first_claim(store, {"agent"}))).run_id == claim.run_id


async def test_a_clock_that_is_set_back_wakes_nobody_early(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    shift = 0
    looks = 0

    def clock() -> int:
        nonlocal looks
        looks += 1
        return time.time_ns() + shift

    monkeypatch.setattr(CLOCK, clock)
    claim = await parked(store, time.time_ns() + HOUR)
    shift, before = -HOUR, looks
    await until(lambda: looks > before)
    assert await state(store, claim) == RunState.RUN_STATE_SUSPENDED
    shift = HOUR
    assert (await soon(first_claim(store, {"agent"}))).run_id == claim.run_id


@pytest.mark.parametrize("error", [StoreUnavailable("The disk is full."), ValueError("a defect")])
async def test_what_is_due_while_the_store_fails_is_woken_afterwards(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    wake_due = store._waker._wake
    asked = 0

    async def fails(now: int) -> int | None:
        nonlocal asked
        asked += 1
        if asked <= 2:
            raise error
        return await wake_due(now)

    monkeypatch.setattr(store._waker, "_wake", fails)
    monkeypatch.setattr("polos_service.store.sqlite.parking.LOOK", 0.01)
    claim = await parked(store, time.time_ns() + HOUR)
    with capture_logs() as logs:
        early = await parked(store, time.time_ns())
        assert (await soon(first_claim(store, {"agent"}))).run_id == early.run_id
    assert [one["event"] for one in logs].count("wake_failed") == 2
    assert await state(store, claim) == RunState.RUN_STATE_SUSPENDED


async def test_a_suspended_run_is_not_deleted(store: SqliteStore) -> None:
    claim = await parked(store, None)
    with pytest.raises(RunNotFinished):
        await store.delete("default", claim.run_id)
    assert not await store.expire(1 << 62)
    assert await state(store, claim) == RunState.RUN_STATE_SUSPENDED


async def test_a_suspended_run_leaves_its_project_room(store: SqliteStore) -> None:
    claim = await parked(store, None)
    assert not await store.waiting()
    await store.command("default", claim.run_id, cancel(claim.run_id))
    assert await store.waiting() == {"agent": 1}


async def test_looks_at_times_and_waits_cost_the_same_however_many_there_are(
    store: SqliteStore,
) -> None:
    run_id = (await parked(store, time.time_ns() + HOUR)).run_id
    await store.create(new_run(run_id="first"))
    await store._committer.submit(
        lambda db: (
            db.execute(
                "WITH RECURSIVE n (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < 20000) "
                "INSERT INTO runs (project, run_id, workflow_id, state, epoch, streaming, "
                "create_time, digest, definition, wake_time) "
                f"SELECT 'default', 'n-' || n, 'agent', {SUSPENDED:d}, 1, 1, 1, x'', x'', ? FROM n",
                (time.time_ns() + HOUR,),
            ),
            db.execute(
                "INSERT INTO waits (run, wait_id, project, run_id, create_time, data) "
                "SELECT id, 1, project, run_id, id, x'00' FROM runs"
            ),
        )
    )
    steps = 0

    def count() -> int:
        nonlocal steps
        steps += 1
        return 0

    for connection in (store._db, store._reader):
        connection.set_progress_handler(count, 1)
    await store._wake_due(time.time_ns())
    page = await store.list_waits("default", 5)
    await store.list_waits("default", 5, page[-1].place)
    await store.open_waits("default", run_id)
    await store.close_wait("default", run_id, 1)
    await store.open_wait("default", WaitRecord(run_id=run_id, wait_id=9, create_time=9, data=b""))
    for connection in (store._db, store._reader):
        connection.set_progress_handler(None, 1)
    assert steps < 6 * STEPS
