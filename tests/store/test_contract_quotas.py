"""The contract of every store: the limits of projects, what counts for them, and what frees it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest

from polos_client.errors import QuotaExceeded
from polos_service.quotas import Quota, Quotas
from polos_service.store import Claim
from polos_service.store.access import Store
from polos_service.store.usage import Spent, day_of
from tests.support.service import until
from tests.support.stores import COMPLETED, cancel, first_claim, frame, new_run, soon

Opening = Callable[..., Awaitable[Store]]

BOUND = "bound"
"""The project that has limits; `free` has none."""

MINUTE = 60_000_000_000
"""Nanoseconds in a minute."""


def quotas(**limits: float) -> Quotas:
    return Quotas({BOUND: Quota.model_validate(limits)})


@asynccontextmanager
async def opened(open_store: Opening, **limits: float) -> AsyncIterator[Store]:
    store = await open_store(quotas=quotas(**limits))
    try:
        yield store
    finally:
        await store.close()


async def start(store: Store, project: str = BOUND, **fields: object) -> str:
    return await store.create(new_run(project=project, **fields))


async def end(store: Store, claim: Claim) -> None:
    await store.append(claim, frame(claim.latest + 1, outcome=COMPLETED))


async def refused(starting: Awaitable[object], limit: str, value: str) -> QuotaExceeded:
    with pytest.raises(QuotaExceeded) as caught:
        await starting
    assert caught.value.metadata == {"limit": limit, "value": value, "project": BOUND}
    assert limit in str(caught.value)
    return caught.value


async def test_runs_beyond_the_limit_wait_while_another_project_goes_on(
    open_store: Opening,
) -> None:
    async with opened(open_store, runs=2) as store:
        for _ in range(5):
            await start(store)
        held = [await soon(first_claim(store, {"agent"})) for _ in range(2)]
        assert [one.project for one in held] == [BOUND, BOUND]
        waiting = asyncio.create_task(first_claim(store, {"agent"}))
        await asyncio.sleep(0.2)
        assert not waiting.done()
        await start(store, "free")
        assert (await soon(waiting)).project == "free"
        waiting = asyncio.create_task(first_claim(store, {"agent"}))
        await end(store, held[0])
        assert (await soon(waiting)).project == BOUND
        await store.release(held[1])
        assert (await soon(first_claim(store, {"agent"}))).project == BOUND


async def test_several_claims_at_once_keep_the_limit(open_store: Opening) -> None:
    async with opened(open_store, runs=3) as store:
        for _ in range(6):
            await start(store)
        found: list[Claim] = []
        while len(found) < 3:
            found += await soon(store.claim(["agent"], 16))
        assert len(found) == 3
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(store.claim(["agent"], 16), 0.2)


async def test_no_run_begins_at_a_limit_of_zero_and_each_can_be_cancelled(
    open_store: Opening,
) -> None:
    async with opened(open_store, runs=0) as store:
        run_id = await start(store)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(store.claim(["agent"], 1), 0.2)
        await store.command(BOUND, run_id, cancel(run_id))
        claim = await store.claim_run(BOUND, run_id)
        assert claim is not None
        await end(store, claim)


async def test_queued_runs_are_bounded_for_each_project_until_some_are_claimed(
    open_store: Opening,
) -> None:
    async with opened(open_store, queued=2) as store:
        waiting = asyncio.create_task(first_claim(store, {"agent"}))
        await start(store, "free")
        await soon(waiting)  # a store may count the runs of agents that somebody has asked for
        first = await start(store, request_id="again")
        await start(store)
        await refused(start(store), "queued", "2")
        assert await start(store, request_id="again") == first
        await start(store, "free")
        while (await soon(first_claim(store, {"agent"}))).project != BOUND:
            pass
        await until(lambda: accepted(store), "a start is let in again")
        await refused(start(store), "queued", "2")


async def accepted(store: Store) -> bool:
    try:
        await start(store)
    except QuotaExceeded:
        return False
    return True


async def test_starts_are_counted_for_a_minute_and_survive_a_restart(open_store: Opening) -> None:
    limits = quotas(starts_per_minute=3)
    now = time.time_ns() // MINUTE * MINUTE + MINUTE // 2
    store = await open_store(quotas=limits)
    for _ in range(2):
        await start(store, create_time=now)
    first = await start(store, create_time=now, request_id="again")
    error = await refused(start(store, create_time=now), "starts_per_minute", "3")
    assert error.retry_after == pytest.approx(30.0)
    assert await start(store, create_time=now, request_id="again") == first
    await start(store, "free", create_time=now)
    await store.close()
    store = await open_store(quotas=limits)
    await refused(start(store, create_time=now), "starts_per_minute", "3")
    await start(store, create_time=now + MINUTE)
    await store.close()


async def test_starts_at_the_same_moment_do_not_exceed_the_limit(open_store: Opening) -> None:
    async with opened(open_store, starts_per_minute=5) as store:
        now = time.time_ns()
        outcomes = await asyncio.gather(
            *(start(store, create_time=now) for _ in range(20)), return_exceptions=True
        )
        assert sum(isinstance(one, str) for one in outcomes) == 5


async def test_a_limit_of_zero_refuses_and_a_huge_one_does_not(open_store: Opening) -> None:
    huge = 2**62
    for limit in ("queued", "starts_per_minute"):
        store = await open_store(quotas=quotas(**{limit: 0}))
        await refused(start(store), limit, "0")
        await store.close()
        store = await open_store(quotas=quotas(**{limit: huge}))
        await start(store)
        await store.close()


async def test_what_is_spent_in_a_day_survives_a_restart(open_store: Opening) -> None:
    store = await open_store()
    today = day_of(time.time_ns())
    assert await store.usage.spent(BOUND, today) == Spent()
    await asyncio.gather(*(store.usage.spend(BOUND, today, Spent(10, 3)) for _ in range(20)))
    await store.usage.spend("free", today, Spent(1, 1))
    assert await store.usage.spent(BOUND, today) == Spent(200, 60)
    await store.close()
    store = await open_store()
    assert await store.usage.spent(BOUND, today) == Spent(200, 60)
    await store.usage.spend(BOUND, today, Spent(1, 0))
    assert await store.usage.spent(BOUND, today) == Spent(201, 60)
    assert await store.usage.spent(BOUND, today + 1) == Spent()
    await store.usage.spend(BOUND, today + 1, Spent(7, 7))
    assert await store.usage.spent(BOUND, today + 1) == Spent(7, 7)
    await store.close()
