"""The contract of every store: projects share the queue, whatever one of them has queued."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Collection
from contextlib import asynccontextmanager
from typing import Any

import pytest

from polos_service.store import Claim, RunStore
from tests.support.stores import COMPLETED, claimed, first_claim, frame, new_run, soon

Opening = Callable[..., Awaitable[RunStore]]

MANY = 1_000
"""Queued runs of a project that has many."""


@asynccontextmanager
async def opened(open_store: Opening, **settings: Any) -> AsyncIterator[RunStore]:
    store = await open_store(**settings)
    try:
        yield store
    finally:
        await store.close()


async def queue(store: RunStore, project: str, runs: int, **fields: Any) -> list[str]:
    """Queue runs of a project; return their ids in the order in which they are queued."""
    return [await store.create(new_run(project=project, **fields)) for _ in range(runs)]


async def taken(store: RunStore, runs: int, workflows: Collection[str] = ("agent",)) -> list[Claim]:
    """Claim so many runs, several at a time where the store does that."""
    found: list[Claim] = []
    while len(found) < runs:
        found += await soon(store.claim(workflows, runs - len(found)))
    return found


async def end(store: RunStore, claim: Claim) -> None:
    await store.append(claim, frame(claim.latest + 1, outcome=COMPLETED))


def shares(claims: list[Claim]) -> Counter[str]:
    return Counter(claim.project for claim in claims)


@pytest.mark.parametrize("small", ["default", "small"])
async def test_the_next_slot_goes_to_the_project_without_a_backlog(
    open_store: Opening, small: str
) -> None:
    async with opened(open_store) as store:
        for _ in range(MANY // 100):
            await asyncio.gather(*(store.create(new_run(project="large")) for _ in range(100)))
        first = await soon(first_claim(store, {"agent"}))
        assert first.project == "large"
        (run_id,) = await queue(store, small, 1)
        await end(store, first)
        second = await soon(first_claim(store, {"agent"}))
        assert (second.project, second.run_id) == (small, run_id)
        await end(store, second)
        assert (await soon(first_claim(store, {"agent"}))).project == "large"


async def test_claims_of_several_runs_are_shared_as_well(store: RunStore) -> None:
    for project, runs in (("a", 40), ("b", 3), ("default", 40)):
        await queue(store, project, runs)
    assert shares(await taken(store, 13)) == {"a": 5, "b": 3, "default": 5}


async def test_runs_that_are_held_already_count(store: RunStore) -> None:
    for _ in range(4):
        await claimed(store, project="a")
    for project in ("a", "b"):
        await queue(store, project, 10)
    assert shares(await taken(store, 4)) == {"b": 4}
    assert shares(await taken(store, 4)) == {"a": 2, "b": 2}


async def test_shares_are_proportional_to_weights(open_store: Opening) -> None:
    async with opened(open_store, weights={"a": 3, "c": 0.5}) as store:
        for project in ("a", "b", "c"):
            await queue(store, project, 10)
        assert shares(await taken(store, 9)) == {"a": 6, "b": 2, "c": 1}


async def test_a_small_weight_starves_nobody(open_store: Opening) -> None:
    async with opened(open_store, weights={"small": 1e-6}) as store:
        await queue(store, "large", 10)
        await queue(store, "small", 2)
        assert shares(await taken(store, 5)) == {"large": 4, "small": 1}


async def test_projects_take_turns_when_there_is_one_slot(store: RunStore) -> None:
    projects = ("a", "b", "default")
    for project in projects:
        await queue(store, project, 3)
    order = []
    for _ in range(9):
        claim = await soon(first_claim(store, {"agent"}))
        order.append(claim.project)
        await end(store, claim)
    assert sorted(order[:3]) == sorted(projects)
    assert order == order[:3] * 3


async def test_the_oldest_run_of_a_project_comes_first(store: RunStore) -> None:
    created = {project: await queue(store, project, 4) for project in ("a", "b")}
    claims = await taken(store, 8)
    for project, runs in created.items():
        assert [claim.run_id for claim in claims if claim.project == project] == runs


async def test_a_project_without_runs_of_these_workflows_takes_no_part(store: RunStore) -> None:
    await queue(store, "a", 3, workflow_id="other")
    await queue(store, "b", 3)
    assert shares(await taken(store, 3)) == {"b": 3}
    assert shares(await taken(store, 3, {"agent", "other"})) == {"a": 3}


async def test_turns_outlive_the_process(open_store: Opening) -> None:
    async with opened(open_store) as store:
        await queue(store, "a", 10)
        await end(store, await soon(first_claim(store, {"agent"})))
    async with opened(open_store) as store:
        await queue(store, "b", 1)
        assert (await soon(first_claim(store, {"agent"}))).project == "b"


async def test_a_released_run_is_queued_in_its_project(store: RunStore) -> None:
    await queue(store, "a", 3)
    held = await soon(first_claim(store, {"agent"}))
    await queue(store, "b", 3)
    await store.release(held)
    claims = await taken(store, 6)
    assert shares(claims[:2]) == shares(claims[2:4]) == {"a": 1, "b": 1}
    assert held.run_id in {claim.run_id for claim in claims[:2]}


async def test_a_project_that_is_new_is_heard_by_a_claim_that_waits(store: RunStore) -> None:
    for project in ("default", "a", "b"):
        claiming = asyncio.create_task(first_claim(store, {"agent"}))
        for _ in range(50):
            await asyncio.sleep(0)
        run_id = await store.create(new_run(project=project))
        assert (await soon(claiming)).run_id == run_id
