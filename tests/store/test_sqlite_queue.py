"""What it costs to claim queued runs from a file, counted in work and not in time."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from polos_service.store.sqlite import SqliteStore
from polos_service.store.sqlite.schema import QUEUED
from tests.support.stores import new_run, soon

CLAIM_STATEMENTS = 8
"""Of a claim of one run: the transaction and its owner, the search, the claim, and its mark."""


@pytest.fixture
async def store(tmp_path: Path) -> SqliteStore:
    return await SqliteStore.open(tmp_path / "runs.db", "NORMAL", max_queued=1_000_000)


async def queue(store: SqliteStore, project: str, runs: int, workflow_id: str = "agent") -> None:
    """Queue runs of a project, with a statement behind the store's back if they are many."""
    first = new_run(project=project, workflow_id=workflow_id)
    await store.create(first)
    await store._committer.submit(
        lambda db: (
            db.execute(
                "WITH RECURSIVE n (n) AS (SELECT 2 UNION ALL SELECT n + 1 FROM n WHERE n < ?) "
                "INSERT INTO runs (project, run_id, workflow_id, state, epoch, streaming, "
                "create_time, digest, definition) "
                f"SELECT ?, ? || '-' || n, ?, {QUEUED:d}, 0, 1, 1, x'', x'' FROM n WHERE n <= ?",
                (runs, project, first.run_id, workflow_id, runs),
            ).rowcount
        )
    )


async def cost_of_claim(store: SqliteStore, runs: int) -> tuple[int, int]:
    """Claim so many runs; return the statements, and the steps that SQLite made for them."""
    steps = 0

    def count() -> int:
        nonlocal steps
        steps += 1
        return 0

    statements: list[str] = []
    store._db.set_progress_handler(count, 1)
    store._db.set_trace_callback(statements.append)
    found = await soon(store.claim({"agent"}, runs))
    store._db.set_trace_callback(None)
    store._db.set_progress_handler(None, 1)
    assert len(found) == runs
    for claim in found:
        await store.release(claim)
    return len(statements), steps


async def cost_of_start(store: SqliteStore) -> int:
    """Start a run; return the steps that SQLite made for it."""
    steps = 0

    def count() -> int:
        nonlocal steps
        steps += 1
        return 0

    store._db.set_progress_handler(count, 1)
    await store.create(new_run())
    store._db.set_progress_handler(None, 1)
    return steps


@pytest.mark.parametrize("others", [0, 3])
async def test_a_claim_costs_the_same_whatever_is_queued(store: SqliteStore, others: int) -> None:
    await queue(store, "large", 100)
    await queue(store, "large", 100, "not loaded")
    for number in range(others):
        await queue(store, f"small {number}", 20)
    few = await cost_of_claim(store, 8)
    await queue(store, "large", 20_000)
    await queue(store, "large", 20_000, "not loaded")
    many = await cost_of_claim(store, 8)
    assert many[0] == few[0]
    assert many[1] <= few[1] * 1.2, "a claim works through the queue"
    await store.close()


async def test_one_statement_finds_the_runs_of_all_projects(store: SqliteStore) -> None:
    await queue(store, "a", 50)
    alone = await cost_of_claim(store, 1)
    assert alone[0] <= CLAIM_STATEMENTS
    for project in ("b", "c"):
        await queue(store, project, 50)
    assert (await cost_of_claim(store, 1))[0] == alone[0]
    await store.close()


async def test_a_start_looks_at_no_run_that_is_not_queued(store: SqliteStore) -> None:
    few = await cost_of_start(store)
    await queue(store, "default", 2_000)
    await store._committer.submit(lambda db: db.execute("UPDATE runs SET state = 3").rowcount)
    assert await cost_of_start(store) <= few * 1.5
    await store.close()


async def test_runs_that_start_together_are_claimed_together_project_by_project(
    store: SqliteStore,
) -> None:
    projects = [f"p{number % 4}" for number in range(32)]
    await asyncio.gather(*(store.create(new_run(project=project)) for project in projects))
    found = await soon(store.claim({"agent"}, 16))
    assert [claim.project for claim in found] == ["p0", "p1", "p2", "p3"] * 4
    await store.close()
