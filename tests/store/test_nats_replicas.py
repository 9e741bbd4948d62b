"""Runs that one replica starts, another one holds, and any shows; each beside the others."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace

import pytest

from polos.v1.event_pb2 import AgentFinish, AgentStart
from polos.v1.run_pb2 import RunState
from polos_client.errors import RequestIdReused, TooManyRuns
from polos_client.wire import RESULT_LIMIT
from polos_service.errors import Fenced
from polos_service.pacer import Pacer
from polos_service.reading.details import Details
from polos_service.runs.frame import Encoder
from polos_service.runs.lineage import Lineage
from polos_service.store import Overdue, RunQuery
from polos_service.store.nats import NatsStore
from tests.support.nats import CLAIM_TIMEOUT, NatsServer, queued_and_claimed
from tests.support.nats_stranger import Stranger
from tests.support.nats_wire import Wire, delivered, heard, renewals
from tests.support.stores import (
    ALL,
    COMPLETED,
    cancel,
    claimed,
    ended,
    first_claim,
    frame,
    history,
    new_run,
    soon,
    until,
)


async def test_a_start_at_one_replica_is_claimed_and_read_at_others(
    one: NatsStore, other: NatsStore
) -> None:
    claiming = asyncio.create_task(first_claim(other, {"agent"}))
    run_id = await one.create(new_run(definition=b"what"))
    claim = await soon(claiming)
    assert (claim.run_id, claim.definition) == (run_id, b"what")
    waiting = asyncio.create_task(one.wait("default", run_id, 0))
    await other.append(claim, frame(1, 2, b"events"), b"private")
    await soon(waiting)
    found = await one.read("default", run_id, 0, ALL)
    assert list(found.frames) == [frame(1, 2, b"events")]
    waiting = asyncio.create_task(one.wait("default", run_id, 2))
    await other.append(claim, frame(3, outcome=COMPLETED))
    await soon(waiting)
    found = await one.read("default", run_id, 2, ALL)
    assert (found.latest, found.ended) == (3, True)
    assert (await one.get("default", run_id)).state == COMPLETED


async def test_many_frames_reach_a_reader_at_another_replica_in_order(
    one: NatsStore, other: NatsStore
) -> None:
    claim = await claimed(one)

    async def tail() -> list[int]:
        seen: list[int] = []
        while True:
            found = await other.read("default", claim.run_id, len(seen), 2000)
            seen += [event for part in found.frames for event in range(part.first, part.last + 1)]
            if found.ended and len(seen) == found.latest:
                return seen
            await other.wait("default", claim.run_id, len(seen))

    tails = [asyncio.create_task(tail()) for _ in range(3)]
    for number in range(300):
        await one.append(claim, frame(2 * number + 1, 2 * number + 2, b"x" * 100))
    await one.append(claim, frame(601, outcome=COMPLETED))
    assert await soon(asyncio.gather(*tails)) == [list(range(1, 602))] * 3


async def test_when_a_holder_dies_another_claims_and_the_zombie_is_fenced(
    wire: Wire, wired: NatsStore, other: NatsStore
) -> None:
    old = await queued_and_claimed(wired)
    await wired.append(old, frame(1))
    began = time.monotonic()
    wire.lose(renewals)
    new = await soon(first_claim(other, {"agent"}))
    assert time.monotonic() - began > CLAIM_TIMEOUT / 2, "it was taken from a living holder"
    assert (new.run_id, new.latest) == (old.run_id, 1)
    assert new.epoch > old.epoch
    with pytest.raises(Fenced):
        await wired.append(old, frame(2, data=b"zombie", outcome=COMPLETED), b"private")
    await other.append(new, frame(2, data=b"holder"))
    await wired.release(old)
    for store in (wired, other):
        found = await store.read("default", old.run_id, 1, ALL)
        assert [part.data for part in found.frames] == [b"holder"]
        assert (await store.get("default", old.run_id)).state == RunState.RUN_STATE_RUNNING
    assert all(b"private" not in entry.private for entry in await history(other, new))


async def test_a_holder_learns_at_its_next_renewal_that_its_claim_was_lost(
    wire: Wire, wired: NatsStore, other: NatsStore
) -> None:
    old = await queued_and_claimed(wired)
    obeying = asyncio.create_task(wired.commands(old, 0))
    wire.lose(renewals)
    await soon(first_claim(other, {"agent"}))
    with pytest.raises(Fenced):
        await soon(obeying)


async def test_an_item_found_late_takes_nothing_from_who_got_it_since(
    wire: Wire, wired: NatsStore, other: NatsStore
) -> None:
    late = wire.hold(delivered)
    claiming = asyncio.create_task(first_claim(wired, {"agent"}))
    await other.create(new_run())
    await soon(late.met.wait())
    claim = await soon(first_claim(other, {"agent"}))
    late.go_on.set()
    await until(lambda: bool(wire.requests("STREAM.MSG.GET.POLOS_LOG")))
    await other.append(claim, frame(1))
    assert not claiming.done()
    await other.append(claim, frame(2, outcome=COMPLETED))
    claiming.cancel()


async def test_a_holder_that_renews_keeps_its_run(one: NatsStore, other: NatsStore) -> None:
    claim = await queued_and_claimed(one)
    claiming = asyncio.create_task(first_claim(other, {"agent"}))
    done, _ = await asyncio.wait({claiming}, timeout=3 * CLAIM_TIMEOUT)
    assert not done
    await one.append(claim, frame(1))
    claiming.cancel()


async def test_a_claim_that_came_back_here_ends_the_one_that_was_lost_here(
    wire: Wire, wired: NatsStore, nats_server: NatsServer
) -> None:
    first = await queued_and_claimed(wired)
    obeying = asyncio.create_task(wired.commands(first, 0))
    lost = wire.lose(renewals)
    async with Wire(nats_server) as their_wire:
        their_wire.lose(renewals)
        other = await their_wire.store()
        assert (await soon(first_claim(other, {"agent"}))).run_id == first.run_id
        lost.end()
        again = await soon(first_claim(wired, {"agent"}))
        await other.close()
    assert again.epoch == first.epoch + 2
    with pytest.raises(Fenced):
        await soon(obeying)
    await wired.append(again, frame(1, outcome=COMPLETED))


async def test_a_run_claimed_past_the_queue_is_not_taken_from_its_holder(
    one: NatsStore, other: NatsStore
) -> None:
    claim = await claimed(one)
    claiming = asyncio.create_task(first_claim(other, {"agent"}))
    done, _ = await asyncio.wait({claiming}, timeout=CLAIM_TIMEOUT / 2)
    assert not done
    await one.append(claim, frame(1, outcome=COMPLETED))
    run_id = await one.create(new_run())
    assert (await soon(claiming)).run_id == run_id, "of the one that ended, no item is left"


async def test_a_run_that_ends_past_the_queue_leaves_the_items_of_others_alone(
    wire: Wire, wired: NatsStore, other: NatsStore, stranger: Stranger
) -> None:
    await wired.create(new_run())
    left = await soon(first_claim(wired, {"agent"}))
    past_queue = await claimed(other)
    waiting = asyncio.create_task(
        first_claim(wired, {"agent"})
    )  # its item comes here, and goes back
    async with asyncio.timeout(60):
        while (await stranger.request("CONSUMER.INFO.POLOS_WORK.agent"))["num_ack_pending"] < 2:
            await asyncio.sleep(0.01)
    await other.create(new_run())
    behind = await soon(waiting)
    await other.append(past_queue, frame(1, outcome=COMPLETED))
    await wired.append(behind, frame(1, outcome=COMPLETED))
    wire.lose(renewals)
    assert (await soon(first_claim(other, {"agent"}))).run_id == left.run_id


async def test_a_held_run_is_taken_from_its_holder_by_force_and_leaves_the_queue(
    one: NatsStore, other: NatsStore, stranger: Stranger
) -> None:
    old = await queued_and_claimed(one)
    new = await other.claim_run("default", old.run_id, force=True)
    assert new is not None
    with pytest.raises(Fenced):
        await soon(one.commands(old, 0))
    await other.append(new, frame(1, outcome=RunState.RUN_STATE_FAILED))
    await stranger.empties("POLOS_WORK")


async def test_a_run_is_taken_by_force_while_its_holder_appends(
    one: NatsStore, other: NatsStore
) -> None:
    old = await claimed(one)

    async def write() -> None:
        number = 1
        while True:
            await one.append(old, frame(number))
            number += 1

    writing = asyncio.create_task(write())
    new = await soon(other.claim_run("default", old.run_id, force=True))
    assert new is not None
    with pytest.raises(Fenced):
        await soon(writing)
    await other.append(new, frame(new.latest + 1, outcome=RunState.RUN_STATE_FAILED))
    found = await one.read("default", old.run_id, 0, ALL)
    assert [part.first for part in found.frames] == list(range(1, new.latest + 2))


@pytest.mark.parametrize("whole", [False, True])
async def test_an_ended_run_is_told_by_a_replica_that_has_not_heard_of_its_end(
    wire: Wire, wired: NatsStore, other: NatsStore, *, whole: bool
) -> None:
    claim = await claimed(other)
    encoder = Encoder(Lineage(claim.run_id, claim.workflow_id))
    started = encoder.encode(AgentStart(), sequence=1, time=1)
    finished = encoder.encode(AgentFinish(result="4"), sequence=2, time=2, terminal=True)
    await other.append(claim, frame(1, data=started))
    wire.lose(heard("polos.new."))
    assert (await wired.read("default", claim.run_id, 0, ALL)).latest == 1
    await other.append(claim, frame(2, data=finished, outcome=COMPLETED))
    details = Details(wired, Pacer())
    asked = "default", claim.run_id
    run = await soon(details.whole(*asked, RESULT_LIMIT) if whole else details.ended(*asked))
    assert run.outcome is not None
    assert run.outcome.agent_finish.result == "4"


async def test_a_reader_may_come_with_a_cursor_that_this_replica_has_not_heard_of(
    wire: Wire, wired: NatsStore, other: NatsStore
) -> None:
    claim = await claimed(other)
    assert (await wired.read(claim.project, claim.run_id, 0, ALL)).latest == 0
    wire.lose(heard("polos.new."))
    await other.append(claim, frame(1, 3))
    found = await wired.read(claim.project, claim.run_id, 3, ALL)
    assert (found.frames, found.latest, found.ended) == ((), 3, False)


async def test_runs_of_an_agent_that_a_replica_has_not_loaded_stay_queued(
    one: NatsStore, other: NatsStore
) -> None:
    run_id = await one.create(new_run(workflow_id="rare"))
    mine = await one.create(new_run(workflow_id="agent"))
    assert (await soon(first_claim(other, {"agent"}))).run_id == mine
    assert await one.waiting() == {"rare": 1}
    assert (await soon(first_claim(one, {"rare"}))).run_id == run_id
    assert await other.waiting() == {}


async def test_a_request_id_raced_at_two_replicas_makes_one_run(
    one: NatsStore, other: NatsStore
) -> None:
    runs = [new_run(request_id="r", digest=b"%d" % (n % 2)) for n in range(8)]
    creating = (store.create(run) for run, store in zip(runs, [one, other] * 4, strict=True))
    made = await asyncio.gather(*creating, return_exceptions=True)
    ids = {made_id for made_id in made if isinstance(made_id, str)}
    assert len(ids) == 1
    assert sum(isinstance(refused, RequestIdReused) for refused in made) == 4
    claim = await soon(first_claim(other, {"agent"}))
    assert {claim.run_id} == ids
    await other.append(claim, frame(1, outcome=COMPLETED))
    assert await one.waiting() == {}


async def test_a_cancellation_reaches_the_holder_at_another_replica(
    one: NatsStore, other: NatsStore
) -> None:
    claim = await queued_and_claimed(one)
    arriving = asyncio.create_task(one.commands(claim, 0))
    await other.command("default", claim.run_id, cancel(claim.run_id))
    assert list(await soon(arriving)) == [cancel(claim.run_id)]


async def test_a_run_past_its_deadline_is_overdue_wherever_it_was_started(
    one: NatsStore, other: NatsStore
) -> None:
    now = time.time_ns()
    late = await one.create(new_run(workflow_id="rare", deadline=now))
    await one.create(new_run(workflow_id="rare", deadline=now + 10**12))
    held = await claimed(one, deadline=now)
    first = Overdue(project="default", run_id=late, held=False)
    second = Overdue(project="default", run_id=held.run_id, held=True)
    assert list(await other.overdue(now + 1, 0)) == [first]
    found = await one.overdue(now + 10**10, now)
    assert set(found) == {first, second}, "one that starts now finds them"
    claim = await other.claim_run("default", late)
    assert claim is not None
    await other.append(claim, frame(1, outcome=RunState.RUN_STATE_FAILED))
    await one.release(held)
    assert list(await other.overdue(now + 10**11, 0)) == [replace(second, held=False)]


async def test_a_removed_run_leaves_nothing_but_a_tombstone(
    one: NatsStore, other: NatsStore, stranger: Stranger
) -> None:
    claim = await ended(one, request_id="r")
    held = await claimed(one)
    await one.command("default", held.run_id, cancel(held.run_id))
    while await other.expire(time.time_ns()):
        pass
    assert await stranger.stored("POLOS_LOG", f"polos.log.*.default.{claim.run_id}") == []
    assert await stranger.life(claim.run_id) == "expired"
    assert await stranger.count("KV_POLOS_DEFINITIONS") == 1, "that of the one that is held"
    again = new_run(request_id="r", digest=b"digest")
    assert await one.create(again) == claim.run_id, "what expired is not started again"
    assert len(await other.list("default", RunQuery(limit=9))) == 1


async def test_a_start_beyond_the_bound_is_refused_until_a_run_is_taken_up(
    one: NatsStore, nats_server: NatsServer
) -> None:
    bounded = await NatsStore.open(nats_server.address(), max_queued=3)
    runs = [await bounded.create(new_run(request_id=f"r{n}")) for n in range(3)]
    with pytest.raises(TooManyRuns):
        await bounded.create(new_run(request_id="new"))
    assert await bounded.create(new_run(request_id="r0")) == runs[0], "it is repeated, not new"
    await soon(first_claim(one, {"agent"}))
    await bounded.create(new_run(request_id="new", digest=b"other"))
    with pytest.raises(TooManyRuns):
        await bounded.create(new_run())
    await bounded.close()
