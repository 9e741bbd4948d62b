"""What holds for the SQLite store beyond the contract of every store."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Literal

import pytest

from polos.v1.run_pb2 import RunState
from polos_client.errors import RunNotFinished, StoreUnavailable
from polos_service.errors import Fenced
from polos_service.store import Claim, RunQuery
from polos_service.store.sqlite import SqliteStore
from polos_service.store.sqlite.schema import MIGRATIONS
from tests.support.stores import (
    ALL,
    cancel,
    claimed,
    ended,
    first_claim,
    frame,
    history,
    new_run,
    settled,
    soon,
)

ROOT = Path(__file__).parents[2]


def statements(store: SqliteStore) -> list[str]:
    """Return what the writing connection executes from now on."""
    seen: list[str] = []
    store._db.set_trace_callback(seen.append)
    return seen


def lose(table: str, path: Path) -> None:
    """Break the file under an open store."""
    with contextlib.closing(sqlite3.connect(path)) as db:
        db.execute(f"ALTER TABLE {table} RENAME TO lost")


def mark(version: int, path: Path) -> None:
    with contextlib.closing(sqlite3.connect(path)) as db:
        db.execute(f"PRAGMA user_version = {version}")


def killed(path: Path) -> dict[str, int]:
    """Kill a process that appends; return what it was told is stored, by run."""
    program = [sys.executable, "-m", "tests.support.append_forever", str(path)]
    with subprocess.Popen(program, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        lines = [process.stdout.readline() for _ in range(300)]
        process.send_signal(signal.SIGKILL)
        lines += process.stdout.readlines()
    told = [line.split() for line in lines if line.endswith("\n")]
    return {run_id: int(sequence) for run_id, sequence in told}


async def test_what_was_acknowledged_survives_a_kill(tmp_path: Path) -> None:
    path = tmp_path / "runs.db"
    acknowledged = await asyncio.to_thread(killed, path)
    assert len(acknowledged) == 5
    store = await SqliteStore.open(path)
    for run_id, sequence in acknowledged.items():
        claim = await soon(first_claim(store, {"agent"}))
        assert (claim.run_id, claim.epoch) == (run_id, 2), "oldest first, and for the second time"
        assert claim.latest in {sequence, sequence + 1}
        numbers = range(1, claim.latest + 1)
        found = await store.read("default", run_id, 0, ALL)
        assert b"".join(one.data for one in found.frames) == b"".join(b"%d" % n for n in numbers)
        private = [entry.private for entry in await history(store, claim)][1:-1]
        assert b"".join(private) == b"".join(b"p%d" % n for n in numbers)
    await store.close()


async def test_everything_survives_a_restart(tmp_path: Path) -> None:
    path = tmp_path / "runs.db"
    store = await SqliteStore.open(path)
    over = await ended(store)
    held = await claimed(store)
    await store.append(held, frame(1, 3, b"abc"), b"private")
    await store.command("default", held.run_id, cancel(held.run_id))
    queued = await store.create(new_run(request_id="r"))
    await store.close()
    store = await SqliteStore.open(path)
    assert (await store.get("default", over.run_id)).state == RunState.RUN_STATE_COMPLETED
    assert await store.create(new_run(request_id="r")) == queued
    claim = await soon(first_claim(store, {"agent"}))
    assert (claim.run_id, claim.latest, claim.commands) == (held.run_id, 3, (cancel(held.run_id),))
    assert claim.epoch > held.epoch
    with pytest.raises(Fenced):
        await store.append(held, frame(4))
    assert (await soon(first_claim(store, {"agent"}))).run_id == queued
    await store.close()


@pytest.mark.parametrize("where", ["this process", "another"])
async def test_a_store_in_use_is_refused(tmp_path: Path, where: str) -> None:
    path = tmp_path / "runs.db"
    store = await SqliteStore.open(path)
    if where == "this process":
        with pytest.raises(StoreUnavailable, match="in use") as refused:
            await SqliteStore.open(path)
        said = str(refused.value)
    else:
        program = [sys.executable, "-m", "tests.support.append_forever", str(path)]
        other = await asyncio.to_thread(
            subprocess.run, program, cwd=ROOT, capture_output=True, text=True, timeout=30
        )
        assert (other.returncode, other.stdout) == (1, "")
        said = other.stderr.strip().splitlines()[-1]
    assert f"The store {path} is in use" in said
    assert "--store" in said
    run_id = await store.create(new_run())
    await store.close()
    again = await SqliteStore.open(path)
    assert (await again.get("default", run_id)).run_id == run_id
    await again.close()


async def test_writing_is_durable_against_power_loss(tmp_path: Path) -> None:
    store = await SqliteStore.open(tmp_path / "runs.db")
    for name, value in (("synchronous", 2), ("journal_mode", "wal")):
        assert store._db.execute(f"PRAGMA {name}").fetchone() == (value,)
    await store.close()


async def test_what_queues_is_committed_together(tmp_path: Path) -> None:
    store = await SqliteStore.open(tmp_path / "runs.db")
    claims = [await claimed(store) for _ in range(100)]
    seen = statements(store)
    await asyncio.gather(*(store.append(claim, frame(1)) for claim in claims))
    assert len(seen) <= 20, "a statement for each commit, which many share"
    assert all(one.startswith("INSERT INTO spool") for one in seen)
    await store.close()


async def test_one_that_fails_does_not_harm_those_it_is_committed_with(tmp_path: Path) -> None:
    store = await SqliteStore.open(tmp_path / "runs.db")
    good, bad = [await claimed(store) for _ in range(20)], await claimed(store)
    lost = await claimed(store)
    await store.release(lost)
    seen = statements(store)
    outcomes = await asyncio.gather(
        *(store.append(claim, frame(1)) for claim in good[:10]),
        store.append(bad, frame(7)),
        store.append(lost, frame(1)),
        store.delete("default", bad.run_id),
        *(store.append(claim, frame(1)) for claim in good[10:]),
        return_exceptions=True,
    )
    assert "ROLLBACK" in seen, "nothing failed beside others: this test tests nothing"
    assert [type(one) for one in outcomes[10:13]] == [ValueError, Fenced, RunNotFinished]
    assert [one for one in outcomes if one is not None] == outcomes[10:13]
    for claim in good:
        found = await store.read("default", claim.run_id, 0, ALL)
        assert [(one.first, one.last) for one in found.frames] == [(1, 1)]
    assert not (await store.read("default", bad.run_id, 0, ALL)).frames
    await store.close()


async def test_closing_commits_what_was_submitted(tmp_path: Path) -> None:
    path = tmp_path / "runs.db"
    store = await SqliteStore.open(path)
    creations = [asyncio.ensure_future(store.create(new_run())) for _ in range(50)]
    await asyncio.sleep(0)
    await store.close()
    created = await soon(asyncio.gather(*creations))
    store = await SqliteStore.open(path)
    runs = await store.list("default", RunQuery(limit=100))
    assert {run.run_id for run in runs} == set(created)
    await store.close()


@pytest.mark.parametrize(("setting", "number"), [("FULL", 2), ("NORMAL", 1)])
async def test_how_durable_a_commit_is_can_be_chosen(
    tmp_path: Path, setting: Literal["FULL", "NORMAL"], number: int
) -> None:
    store = await SqliteStore.open(tmp_path / "runs.db", setting)
    assert store._db.execute("PRAGMA synchronous").fetchone() == (number,)
    await store.close()


async def test_a_closed_store_refuses_to_write(tmp_path: Path) -> None:
    store = await SqliteStore.open(tmp_path / "runs.db")
    await store.close()
    with pytest.raises(StoreUnavailable):
        await asyncio.wait_for(store.create(new_run()), 2)


async def test_a_newer_schema_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "runs.db"
    await (await SqliteStore.open(path)).close()
    mark(99, path)
    told = rf"version 99.*up to version {len(MIGRATIONS)};"
    with pytest.raises(StoreUnavailable, match=told) as refused:
        await SqliteStore.open(path)
    assert str(path) in str(refused.value)
    mark(len(MIGRATIONS), path)
    await (await SqliteStore.open(path)).close()


@pytest.mark.parametrize("kind", ["folder", "below a file", "no database", "unwritable"])
async def test_what_cannot_be_a_store_is_refused(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "runs.db"
    if kind == "folder":
        path.mkdir()
    elif kind == "below a file":
        path.write_text("a file")
        path /= "runs.db"
    elif kind == "no database":
        path.write_bytes(b"certainly no database" * 100)
    else:
        path = Path("/proc/polos/runs.db")  # a folder in which not even root can write
    with pytest.raises(StoreUnavailable, match=r"cannot be opened: .+") as refused:
        await SqliteStore.open(path)
    assert str(path) in str(refused.value)


async def test_a_path_may_have_spaces_and_any_letters(tmp_path: Path) -> None:
    path = tmp_path / "a new folder" / "läufe ツ %3f?#&.db"
    store = await SqliteStore.open(path)
    run_id = await store.create(new_run(run_id="läufe ツ"))
    await store.close()
    assert path.is_file()
    store = await SqliteStore.open(path)
    assert (await store.get("default", run_id)).run_id == "läufe ツ"
    await store.close()


Begin = Callable[[SqliteStore], Awaitable[Claim]]
Call = Callable[[SqliteStore, Claim], Awaitable[object]]

CALLS: list[tuple[str, Begin, Call]] = [
    ("frames", ended, lambda store, claim: store.read("default", claim.run_id, 0, ALL)),
    ("runs", ended, lambda store, claim: store.wait("default", claim.run_id, 2)),
    ("frames", claimed, history),
    ("inbox", ended, lambda store, claim: store.commands(claim, 0)),
    (
        "inbox",
        claimed,
        lambda store, claim: store.command("default", claim.run_id, cancel(claim.run_id)),
    ),
    ("runs", claimed, lambda store, claim: store.get("default", claim.run_id)),
    ("runs", claimed, lambda store, _: store.create(new_run())),
    ("runs", claimed, lambda store, _: first_claim(store, {"agent"})),
    ("runs", claimed, lambda store, claim: store.release(claim)),
]


@pytest.mark.parametrize(("table", "begin", "call"), CALLS)
async def test_a_broken_file_is_told_as_unavailable(
    tmp_path: Path, table: str, begin: Begin, call: Call
) -> None:
    store = await SqliteStore.open(tmp_path / "runs.db")
    claim = await begin(store)
    lose(table, tmp_path / "runs.db")
    with pytest.raises(StoreUnavailable):
        await soon(call(store, claim))
    await store.close()


async def test_a_cancelled_claim_is_cancelled_though_the_store_fails(tmp_path: Path) -> None:
    store = await SqliteStore.open(tmp_path / "runs.db")
    lose("runs", tmp_path / "runs.db")
    claiming = asyncio.create_task(first_claim(store, {"agent"}))
    await asyncio.sleep(0)
    claiming.cancel()
    with pytest.raises(asyncio.CancelledError):
        await soon(claiming)
    await settled()
    await store.close()


async def test_a_claim_cancelled_right_before_the_end_is_queued_at_the_next_start(
    tmp_path: Path,
) -> None:
    failures: list[dict[str, object]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, failure: failures.append(failure))
    store = await SqliteStore.open(tmp_path / "runs.db")
    run_id = await store.create(new_run())
    claiming = asyncio.create_task(first_claim(store, {"agent"}))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    claiming.cancel()
    await store.close()
    await asyncio.wait({claiming})
    assert claiming.cancelled()
    await settled()
    assert failures == []
    store = await SqliteStore.open(tmp_path / "runs.db")
    assert (await soon(first_claim(store, {"agent"}))).run_id == run_id
    await store.close()


@pytest.mark.parametrize(
    ("state", "index"),
    [(RunState.RUN_STATE_QUEUED, "runs_due"), (RunState.RUN_STATE_RUNNING, "runs_stuck")],
)
async def test_what_is_overdue_is_found_by_an_index(tmp_path: Path, state: int, index: str) -> None:
    store = await SqliteStore.open(tmp_path / "runs.db")
    plans: list[str] = []
    seen: list[str] = []
    store._reader.set_trace_callback(seen.append)
    await store.overdue(1, 1)
    store._reader.set_trace_callback(None)
    for statement in seen:
        if f"state = {state} " in statement:
            plans += [row[3] for row in store._reader.execute(f"EXPLAIN QUERY PLAN {statement}")]
    assert len(plans) == 1
    assert index in plans[0]
    await store.close()


async def test_a_commit_is_answered_though_the_file_cannot_be_looked_at(tmp_path: Path) -> None:
    store = await SqliteStore.open(tmp_path / "runs.db")
    claim = await claimed(store)
    folder = os.open(tmp_path, os.O_RDONLY)
    os.dup2(folder, store._file._wal)  # which cannot be read
    os.close(folder)
    with pytest.raises(StoreUnavailable, match="cannot be reached"):
        await soon(store.append(claim, frame(1)))
    await store.close()
