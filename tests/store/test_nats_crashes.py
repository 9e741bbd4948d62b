"""What a replica that ended left half-way, others complete."""

from __future__ import annotations

import asyncio
import time

import pytest

from polos_client.errors import RunExpired, StoreUnavailable
from polos_service.store.nats import NatsStore
from polos_service.store.nats.subjects import log_subject
from tests.support.nats import queued_and_claimed
from tests.support.nats_stranger import Stranger
from tests.support.nats_wire import Wire, asked, published
from tests.support.stores import ALL, COMPLETED, claimed, ended, first_claim, frame, new_run, soon


@pytest.mark.parametrize("lost", ["$KV.POLOS_RUNS.", "polos.work."])
async def test_a_repeated_start_completes_what_a_crash_left_out(
    wire: Wire, hasty: NatsStore, one: NatsStore, lost: str
) -> None:
    first = new_run(request_id="r")
    wire.lose(published(lost))
    with pytest.raises(StoreUnavailable):
        await hasty.create(first)
    assert await one.create(new_run(request_id="r")) == first.run_id
    assert (await soon(first_claim(one, {"agent"}))).run_id == first.run_id


async def test_a_start_that_crashed_before_the_queue_is_queued_by_whoever_finds_it(
    wire: Wire, hasty: NatsStore, other: NatsStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    lost = new_run(deadline=time.time_ns())
    wire.lose(published("polos.work."))
    with pytest.raises(StoreUnavailable):
        await hasty.create(lost)
    assert await other.overdue(time.time_ns(), 0) == [], "it may be on its way"
    monkeypatch.setattr("polos_service.store.nats.upkeep.UNDER_WAY", -60)
    (found,) = await other.overdue(time.time_ns(), 0)
    assert (found.run_id, found.held) == (lost.run_id, False)
    assert (await soon(first_claim(other, {"agent"}))).run_id == lost.run_id


async def test_an_item_of_a_run_that_has_ended_mends_its_record(
    wire: Wire, hasty: NatsStore, other: NatsStore, stranger: Stranger
) -> None:
    claim = await queued_and_claimed(hasty)
    wire.lose(published("$KV.POLOS_RUNS."))
    await hasty.append(claim, frame(1, outcome=COMPLETED))
    assert await stranger.life(claim.run_id) == "open"
    assert (await other.get("default", claim.run_id)).state == COMPLETED
    mine = await other.create(new_run(workflow_id="next"))
    claiming = asyncio.create_task(first_claim(other, {"agent", "next"}))
    assert (await soon(claiming)).run_id == mine
    again = asyncio.create_task(first_claim(other, {"agent"}))
    async with asyncio.timeout(60):
        while await stranger.life(claim.run_id) != "ended":
            await asyncio.sleep(0.05)
    assert not again.done()
    again.cancel()


async def test_a_record_that_was_left_open_after_the_end_is_closed_and_expires(
    wire: Wire,
    hasty: NatsStore,
    other: NatsStore,
    stranger: Stranger,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    claim = await claimed(hasty)
    wire.lose(published("$KV.POLOS_RUNS."))
    await hasty.append(claim, frame(1, outcome=COMPLETED))
    await stranger.request("STREAM.PURGE.POLOS_WORK")
    assert await stranger.life(claim.run_id) == "open"
    monkeypatch.setattr("polos_service.store.nats.upkeep.UNDER_WAY", -60)
    await other.overdue(time.time_ns(), 0)
    assert await stranger.life(claim.run_id) == "ended"
    assert await other.expire(time.time_ns())


async def test_an_expiry_that_stopped_half_way_is_gone_on_with(
    wire: Wire,
    hasty: NatsStore,
    other: NatsStore,
    stranger: Stranger,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    claim = await ended(hasty)
    wire.lose(asked("STREAM.PURGE.POLOS_LOG"))
    with pytest.raises(StoreUnavailable):
        await hasty.expire(time.time_ns())
    with pytest.raises(RunExpired):
        await other.read("default", claim.run_id, 0, ALL)
    assert not await other.expire(0), "it is left to who began it, for a while"
    monkeypatch.setattr("polos_service.store.nats.upkeep.UNDER_WAY", 0)
    assert await other.expire(0)
    assert await stranger.last("POLOS_LOG", log_subject("default", claim.run_id)) is None
    assert not await other.expire(0)
