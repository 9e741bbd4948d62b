"""What one replica does while another one holds, ends or shows something."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from polos_service.store.nats import NatsStore
from polos_service.store.nats.subjects import WORK
from tests.support.nats import NatsServer
from tests.support.stores import ALL, COMPLETED, claimed, frame, new_run, soon


@pytest.fixture
async def replicas(nats_server: NatsServer) -> AsyncIterator[list[NatsStore]]:
    stores = [await NatsStore.open(nats_server.address(), claim_timeout=1) for _ in range(2)]
    yield stores
    for store in stores:
        await store.close()


async def test_a_run_that_ends_past_the_queue_leaves_the_items_of_others_alone(
    replicas: list[NatsStore],
) -> None:
    dying, other = replicas
    await dying.create(new_run())
    left = await soon(dying.claim({"agent"}))
    past_queue = await claimed(other)
    waiting = asyncio.create_task(dying.claim({"agent"}))  # its item comes here, and goes back
    async with asyncio.timeout(60):
        while (await other._jetstream.request(f"CONSUMER.INFO.{WORK}.agent"))[
            "num_ack_pending"
        ] < 2:
            await asyncio.sleep(0.01)
    await other.create(new_run())
    behind = await soon(waiting)
    await other.append(past_queue, frame(1, outcome=COMPLETED))
    await dying.append(behind, frame(1, outcome=COMPLETED))
    await dying._claims.close()  # it renews nothing any more
    assert (await soon(other.claim({"agent"}))).run_id == left.run_id


async def test_a_reader_may_come_with_a_cursor_that_this_replica_has_not_heard_of(
    replicas: list[NatsStore],
) -> None:
    deaf, other = replicas
    claim = await claimed(other)
    assert (await deaf.read(claim.project, claim.run_id, 0, ALL)).latest == 0
    news = deaf._feeds._feeds[claim.project, claim.run_id].news
    assert news is not None
    await news.unsubscribe()
    await other.append(claim, frame(1, 3))
    found = await deaf.read(claim.project, claim.run_id, 3, ALL)
    assert (found.frames, found.latest, found.ended) == ((), 3, False)
