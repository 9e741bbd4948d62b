"""The executor: many runs that are queued at once."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Collection, Sequence

import pytest

from polos.v1.run_pb2 import RunState
from polos_service.runs.context import RunContext
from polos_service.runs.executor import CLAIMS_AT_ONCE
from polos_service.store import Claim
from polos_service.store.sqlite import SqliteStore
from tests.support.runs import executing, runnable
from tests.support.stores import all_events, new_run, soon, until

MANY = 100


class Turns:
    """Counts the turns of the loop."""

    def __init__(self) -> None:
        self.now = 0
        self._loop = asyncio.get_running_loop()
        self._count()

    def _count(self) -> None:
        self.now += 1
        self._next = self._loop.call_soon(self._count)

    def stop(self) -> None:
        self._next.cancel()


@pytest.fixture
def claims(monkeypatch: pytest.MonkeyPatch, store: SqliteStore) -> list[tuple[int, int]]:
    """Give what was asked for and what came, for each claim."""
    made: list[tuple[int, int]] = []
    claim = store.claim

    async def counted(workflows: Collection[str], limit: int) -> Sequence[Claim]:
        found = await claim(workflows, limit)
        made.append((limit, len(found)))
        return found

    monkeypatch.setattr(store, "claim", counted)
    return made


async def test_one_run_begins_in_each_turn_of_the_loop(store: SqliteStore) -> None:
    begun: list[int] = []

    async def run(_ctx: RunContext) -> None:
        begun.append(turns.now)

    created = [await store.create(new_run()) for _ in range(MANY)]
    turns = Turns()
    async with executing(store, runnable(run), limit=MANY):
        for run_id in created:
            await all_events(store, run_id)
    turns.stop()
    assert len(begun) == MANY
    assert max(Counter(begun).values()) == 1


async def test_runs_are_claimed_some_at_a_time_and_begin_before_the_next_are_claimed(
    store: SqliteStore, claims: list[tuple[int, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    begun: list[str] = []
    ahead: list[int] = []
    claim = store.claim

    async def watched(workflows: Collection[str], limit: int) -> Sequence[Claim]:
        ahead.append(sum(came for _, came in claims) - len(begun))
        return await claim(workflows, limit)

    async def run(ctx: RunContext) -> None:
        begun.append(ctx.run_id)

    created = [await store.create(new_run()) for _ in range(MANY)]
    monkeypatch.setattr(store, "claim", watched)
    async with executing(store, runnable(run), limit=MANY):
        for run_id in created:
            await all_events(store, run_id)
    assert begun == created
    assert max(came for _, came in claims) == CLAIMS_AT_ONCE
    assert len(claims) <= MANY // CLAIMS_AT_ONCE + 1
    assert max(ahead) <= 4, "those claimed before have had their turns"


async def test_no_more_runs_are_claimed_than_slots_are_free(
    store: SqliteStore, claims: list[tuple[int, int]]
) -> None:
    go_on = asyncio.Event()
    running = most = 0

    async def run(_ctx: RunContext) -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await go_on.wait()
        running -= 1

    created = [await store.create(new_run()) for _ in range(12)]
    async with executing(store, runnable(run), limit=5):
        await until(lambda: running == 5)
        assert claims == [(5, 5)]
        go_on.set()
        for run_id in created:
            await all_events(store, run_id)
    assert most == 5


async def test_stop_gives_back_runs_that_were_claimed_and_have_not_begun(
    store: SqliteStore, claims: list[tuple[int, int]]
) -> None:
    async def run(_ctx: RunContext) -> None:
        await asyncio.Event().wait()

    created = [await store.create(new_run()) for _ in range(MANY)]
    async with executing(store, runnable(run), limit=MANY) as executor:
        await until(lambda: bool(claims))
        await soon(executor.stop(0))
    assert executor.running == 0
    for run_id in created:
        assert (await store.get("default", run_id)).state == RunState.RUN_STATE_QUEUED
