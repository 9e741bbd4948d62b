"""Limits of projects over several replicas."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from polos_client.errors import QuotaExceeded
from polos_service.quotas import Quota, Quotas
from polos_service.store.nats import NatsStore
from polos_service.store.usage import Spent, day_of
from tests.support.nats import CLAIM_TIMEOUT, NatsServer
from tests.support.stores import COMPLETED, first_claim, frame, new_run, soon, until


@asynccontextmanager
async def replicas(server: NatsServer, **limits: int) -> AsyncIterator[list[NatsStore]]:
    """Give two replicas on a server, with these limits for the project `p`."""
    quotas = Quotas({"p": Quota(**limits)})
    stores = [
        await NatsStore.open(server.address(), claim_timeout=CLAIM_TIMEOUT, quotas=quotas)
        for _ in range(2)
    ]
    try:
        yield stores
    finally:
        for store in stores:
            await store.close()


async def test_replicas_count_starts_together(nats_server: NatsServer) -> None:
    async with replicas(nats_server, starts_per_minute=4) as stores:
        now = time.time_ns()
        for number in range(4):
            await stores[number % 2].create(new_run(project="p", create_time=now))
        for store in stores:
            with pytest.raises(QuotaExceeded):
                await store.create(new_run(project="p", create_time=now))


async def test_replicas_count_spending_together(nats_server: NatsServer) -> None:
    async with replicas(nats_server) as (one, other):
        today = day_of(time.time_ns())
        await asyncio.gather(
            *(store.usage.spend("p", today, Spent(5, 7)) for store in (one, other) * 5)
        )
        for store in (one, other):
            assert await store.usage.spent("p", today) == Spent(50, 70)


async def test_replicas_share_the_runs_at_once_and_a_dead_one_gives_its_share_back(
    nats_server: NatsServer,
) -> None:
    async with replicas(nats_server, runs=1) as (one, other):
        for _ in range(3):
            await one.create(new_run(project="p"))
        claim = await soon(first_claim(one, {"agent"}))
        await until(lambda: other._shares.held().get("p") == 1)
        waiting = asyncio.create_task(first_claim(other, {"agent"}))
        await asyncio.sleep(0.3)
        assert not waiting.done()
        await one.append(claim, frame(1, outcome=COMPLETED))
        await soon(waiting)
        await until(lambda: one._shares.held().get("p") == 1)
        further = asyncio.create_task(first_claim(one, {"agent"}))
        await other.close()  # without a word, as far as its claims are concerned
        await soon(further)
