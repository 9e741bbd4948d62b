"""Retention: whole runs go, tombstone first, in small pieces."""

from __future__ import annotations

import sqlite3
import time
from pathlib import Path

import pytest

from polos.v1.run_pb2 import RunState
from polos_client.errors import RunExpired
from polos_service.store import Frame, RunQuery, RunStore
from polos_service.store.sqlite import SqliteStore, spool
from polos_service.store.sqlite.removal import PIECE
from tests.support.stores import claimed

COMPLETED = RunState.RUN_STATE_COMPLETED


async def ended(store: RunStore, frames: int = 1) -> str:
    claim = await claimed(store)
    for number in range(1, frames + 1):
        outcome = COMPLETED if number == frames else None
        await store.append(claim, Frame(first=number, last=number, data=b"x", outcome=outcome))
    return claim.run_id


@pytest.fixture(autouse=True)
def _a_row_for_each_frame(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spool, "LARGE", 0)


async def test_what_ended_before_goes_and_the_rest_stays(store: RunStore) -> None:
    old = await ended(store)
    border = time.time_ns()
    young = await ended(store)
    running = (await claimed(store)).run_id
    while await store.expire(border):
        pass
    for call in (store.get("default", old), store.read("default", old, 0, 1)):
        with pytest.raises(RunExpired, match=old):
            await call
    with pytest.raises(RunExpired):
        await store.wait("default", old, 0)
    with pytest.raises(RunExpired):
        await store.delete("default", old)
    listed = await store.list("default", RunQuery(limit=10))
    assert [run.run_id for run in listed] == [running, young]
    assert not await store.expire(border)


async def test_a_long_run_goes_in_pieces_and_is_gone_for_readers_at_once(tmp_path: Path) -> None:
    store = await SqliteStore.open(tmp_path / "runs.db")
    run_id = await ended(store, frames=2 * PIECE)
    pieces = 0
    while await store.expire(time.time_ns()):
        pieces += 1
        with pytest.raises(RunExpired):
            await store.read("default", run_id, 0, 1)
    assert pieces >= 3
    await store.close()
    db = sqlite3.connect(tmp_path / "runs.db")
    assert db.execute("SELECT count(*) FROM frames").fetchone() == (0,)
    assert db.execute("SELECT length(definition) FROM runs").fetchone() == (0,)
    db.close()


async def test_a_crash_in_the_middle_is_gone_on_with(tmp_path: Path) -> None:
    store = await SqliteStore.open(tmp_path / "runs.db")
    run_id = await ended(store, frames=2 * PIECE)
    assert await store.expire(time.time_ns())
    await store.close()
    store = await SqliteStore.open(tmp_path / "runs.db")
    with pytest.raises(RunExpired):
        await store.get("default", run_id)
    while await store.expire(0):
        pass
    assert store._reader.execute("SELECT count(*) FROM frames").fetchone() == (0,)
    await store.close()
