"""Several replicas on one nats-server, with a project that has thousands of runs queued."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from pathlib import Path

from polos_service.store import Claim
from polos_service.store.nats import NatsStore
from tests.support.nats import NatsServer, replica
from tests.support.stores import COMPLETED, first_claim, frame, new_run, soon

MANY = 5_000
"""Queued runs of the project with a backlog."""

REPLICAS = 3

SLOTS = 2
"""Runs that a replica executes at a time."""


async def end(store: NatsStore, claim: Claim) -> None:
    await store.append(claim, frame(claim.latest + 1, outcome=COMPLETED))


async def test_the_next_slot_of_any_replica_goes_to_the_project_without_a_backlog(
    tmp_path: Path,
) -> None:
    async with AsyncExitStack() as stack:
        server = stack.enter_context(NatsServer(tmp_path))
        stores = [await replica(server) for _ in range(REPLICAS)]
        for store in stores:
            stack.push_async_callback(store.close)
        for _ in range(MANY // 100):
            await asyncio.gather(*(stores[0].create(new_run(project="large")) for _ in range(100)))
        held = [(store, await soon(first_claim(store, {"agent"}))) for store in stores * SLOTS]
        assert {claim.project for _, claim in held} == {"large"}
        for store, claim in held:
            run_id = await stores[0].create(new_run(project="small"))
            await end(store, claim)
            small = await soon(first_claim(store, {"agent"}))
            assert (small.project, small.run_id) == ("small", run_id)
            await end(store, small)
            assert (await soon(first_claim(store, {"agent"}))).project == "large"
