"""The store under stress: a full disk, a file that cannot be written, a damaged one."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from polos.v1.event_pb2 import TextDelta
from polos_client.errors import StoreUnavailable
from polos_service.runs import executor as module
from polos_service.runs.attempt import Attempt, StepOutput
from polos_service.runs.context import RunContext
from polos_service.store.sqlite import SqliteStore
from polos_service.store.sqlite.schema import PAGE_SIZE
from tests.support.runs import executing, kinds, runnable
from tests.support.stores import ALL, all_events, claimed, frame, new_run, soon, spans, until


@pytest.fixture
async def full(tmp_path: Path) -> AsyncIterator[SqliteStore]:
    """Give a store whose disk can be made full."""
    store = await SqliteStore.open(tmp_path / "runs.db")
    yield store
    await store.close()


def fill(store: SqliteStore) -> None:
    (pages,) = store._reader.execute("PRAGMA page_count").fetchone()
    store._db.execute(f"PRAGMA max_page_count = {pages}")


def make_room(store: SqliteStore) -> None:
    store._db.execute("PRAGMA max_page_count = 1000000")


async def test_a_full_disk_is_told_and_nothing_acknowledged_is_lost(full: SqliteStore) -> None:
    claim = await claimed(full)
    await full.append(claim, frame(1, data=b"x" * 3000))
    fill(full)
    last = 1
    with pytest.raises(StoreUnavailable, match="full"):
        for last in range(2, 1000):
            await full.append(claim, frame(last, data=b"x" * 3000))
    acknowledged = [(number, number) for number in range(1, last)]
    assert await spans(full, claim) == acknowledged
    make_room(full)
    await full.append(claim, frame(last, data=b"x" * 3000))
    assert await spans(full, claim) == [*acknowledged, (last, last)]


async def test_a_run_goes_on_when_there_is_room_again(
    full: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "RETRY_PAUSE", 0.5)
    attempts: list[int] = []

    async def talk(attempt: Attempt) -> StepOutput:
        attempts.append(attempt.number)
        if len(attempts) == 1:
            fill(full)
        for _ in range(50):
            await attempt.emit(
                TextDelta(content="x" * 3000, step_key=attempt.key, attempt=attempt.number)
            )
            await attempt.checkpoint()
        return StepOutput(result_json="1")

    async def run(ctx: RunContext) -> None:
        await ctx.step("talk", "tool", talk)

    with capture_logs() as logs:
        async with executing(full, runnable(run)):
            run_id = await full.create(new_run())
            await until(lambda: any(one["event"] == "run_released" for one in logs))
            make_room(full)
            events = await all_events(full, run_id)
    assert len(attempts) > 1
    assert [event.sequence for event in events] == list(range(1, len(events) + 1))
    assert kinds(events)[-1] == "workflow_finish"
    assert sum(event.terminal for event in events) == 1


async def test_a_file_made_read_only_refuses_writes_and_is_still_read(full: SqliteStore) -> None:
    claim = await claimed(full)
    await full.append(claim, frame(1))
    full._db.execute("PRAGMA query_only = ON")
    with pytest.raises(StoreUnavailable, match="readonly"):
        await full.append(claim, frame(2))
    with pytest.raises(StoreUnavailable, match="readonly"):
        await full.create(new_run())
    assert await spans(full, claim) == [(1, 1)]
    full._db.execute("PRAGMA query_only = OFF")
    await full.append(claim, frame(2))


async def test_a_damaged_page_is_told(tmp_path: Path) -> None:
    path = tmp_path / "runs.db"
    store = await SqliteStore.open(path)
    claim = await claimed(store)
    for number in range(1, 60):
        await store.append(claim, frame(number, data=b"x" * 3000))
    await store.close()
    root = roots(path)["frames"]
    with path.open("r+b") as file:
        file.seek((root - 1) * PAGE_SIZE)
        file.write(b"\xff" * PAGE_SIZE)
    store = await SqliteStore.open(path)
    with pytest.raises(StoreUnavailable, match=r"cannot be read: .+"):
        await store.read("default", claim.run_id, 0, ALL)
    await store.close()


def roots(path: Path) -> dict[str, int]:
    db = sqlite3.connect(path)
    found = dict(db.execute("SELECT name, rootpage FROM sqlite_master"))
    db.close()
    return found


async def test_the_write_ahead_log_stays_bounded_with_readers_attached(tmp_path: Path) -> None:
    path = tmp_path / "runs.db"
    store = await SqliteStore.open(path)
    claim = await claimed(store)

    async def follow() -> int:
        after = 0
        while after < 400:
            await store.wait("default", claim.run_id, after)
            part = await store.read("default", claim.run_id, after, ALL)
            after = part.latest
        return after

    readers = [asyncio.create_task(follow()) for _ in range(5)]
    largest = 0
    for number in range(1, 401):
        await store.append(claim, frame(number, data=b"x" * 100_000))
        largest = max(largest, path.with_name("runs.db-wal").stat().st_size)
    assert await soon(asyncio.gather(*readers)) == [400] * 5
    assert largest < 10_000_000, "40 MB were written"
    await store.close()
