"""What holds for NATS replicas that race, are stopped half-way, or hear an old leader."""

from __future__ import annotations

import asyncio
import time

import orjson
import pytest

from polos_client.errors import RequestIdReused, RunNotFound, StoreUnavailable
from polos_service.store.nats import NatsStore
from polos_service.store.nats.connection import Connection
from polos_service.store.nats.feeds import Feeds
from polos_service.store.nats.jetstream import JetStream
from polos_service.store.nats.log import Log
from polos_service.store.nats.records import Records
from polos_service.store.nats.shielded import ShieldedTasks
from polos_service.store.nats.subjects import log_subject, work_subject
from polos_service.store.wakeups import Wakeups
from tests.support.nats import NatsServer
from tests.support.nats_stranger import Stranger
from tests.support.nats_wire import Wire, answers, asked, published
from tests.support.stores import COMPLETED, claimed, ended, first_claim, frame, new_run, soon

NO_MESSAGE = b'{"error": {"code": 404, "err_code": 10037, "description": "no message found"}}'
"""The answer of a leader that has no message of a subject."""


async def test_an_item_stays_though_an_old_leader_says_that_there_is_no_run(
    wire: Wire, wired: NatsStore
) -> None:
    run_id = await wired.create(new_run())
    old = wire.change(answers(asked("STREAM.MSG.GET.KV_POLOS_RUNS")), NO_MESSAGE)
    assert (await soon(first_claim(wired, {"agent"}))).run_id == run_id
    assert old.met.is_set()


async def test_an_item_of_a_run_that_is_gone_is_removed(one: NatsStore, stranger: Stranger) -> None:
    await one.create(new_run())
    await stranger.request("STREAM.PURGE.KV_POLOS_RUNS")
    claiming = asyncio.create_task(first_claim(one, {"agent"}))
    await stranger.empties("POLOS_WORK")
    assert not claiming.done()
    claiming.cancel()


async def test_a_replica_stopped_before_its_first_claim_takes_no_run_that_was_removed_since(
    one: NatsStore, wire: Wire, wired: NatsStore
) -> None:
    run_id = await one.create(new_run())
    stopped = wire.hold(published("polos.log."))
    claiming = asyncio.create_task(wired.claim_run("default", run_id))
    await soon(stopped.met.wait())
    claim = await one.claim_run("default", run_id)
    assert claim is not None
    await one.append(claim, frame(1, outcome=COMPLETED))
    await one.delete("default", run_id)
    stopped.go_on.set()
    assert await soon(claiming) is None, "its steps would be run again"
    async with asyncio.timeout(20):  # else its claim stays in the stream: nobody would remove it
        while await one._log.last(log_subject("default", run_id)) is not None:
            await asyncio.sleep(0.02)


async def test_a_deletion_that_goes_on_late_spares_the_run_that_a_repeated_start_made(
    wire: Wire, wired: NatsStore, other: NatsStore
) -> None:
    old = await ended(wired, request_id="r")
    stopped = wire.hold(asked("STREAM.PURGE.KV_POLOS_DEFINITIONS"), times=1 << 30)
    deleting = asyncio.create_task(wired.delete("default", old.run_id))
    await soon(stopped.met.wait())
    new = await other.create(new_run(request_id="r"))
    stopped.end()
    await soon(deleting)
    claim = await soon(first_claim(other, {"agent"}))
    assert (claim.run_id, claim.definition) == (new, b"definition")
    assert await other.create(new_run(request_id="r")) == new, "its request id is still known"
    with pytest.raises(RequestIdReused):
        await other.create(new_run(request_id="r", digest=b"other"))
    with pytest.raises(RunNotFound):
        await other.get("default", old.run_id)


async def test_a_run_is_not_begun_with_half_a_definition(
    one: NatsStore, stranger: Stranger
) -> None:
    run_id = await one.create(new_run(definition=b"whole"))
    await stranger.request("STREAM.PURGE.KV_POLOS_DEFINITIONS")
    with pytest.raises(StoreUnavailable, match=f"piece 0 .* of run {run_id}"):
        await soon(first_claim(one, {"agent"}))
    claim = await one.claim_run("default", run_id)
    assert claim is not None
    assert claim.definition == b"", "a run that has to end needs none"


async def test_a_reader_is_not_left_with_a_feed_that_was_retired_before_it_waits(
    one: NatsStore, nats_server: NatsServer
) -> None:
    claim = await claimed(one)
    jetstream = JetStream(await Connection.open(nats_server.address()))
    feeds = Feeds(jetstream, Log(jetstream), Records(jetstream), Wakeups(), ShieldedTasks())
    feed = await feeds.of("default", claim.run_id)
    feeds.forget(("default", claim.run_id))
    await soon(feeds.wait(feed, 0))
    await jetstream.close()


async def test_a_run_that_expired_before_its_deadline_is_not_asked_about_for_ever(
    wire: Wire, wired: NatsStore, stranger: Stranger
) -> None:
    now = time.time_ns()
    deadline = now + 10**12
    claim = await ended(wired, deadline=deadline)
    item = orjson.dumps(["default", claim.run_id, deadline])
    await stranger.store(work_subject("agent", "default", claim.run_id), item)
    assert await wired.overdue(now, 0) == []
    assert await wired.expire(time.time_ns())
    assert await wired.overdue(now + 2 * 10**12, 0) == []
    before = len(wire.sent)
    assert await wired.overdue(now + 4 * 10**12, 0) == []
    assert not [one for one in wire.sent[before:] if claim.run_id.encode() in one.payload]


async def test_an_item_that_another_replica_removes_first_is_not_removed_again_and_again(
    wire: Wire, wired: NatsStore, stranger: Stranger
) -> None:
    claim = await claimed(wired)
    late = wire.hold(asked("STREAM.MSG.DELETE.POLOS_WORK"))
    ending = asyncio.ensure_future(wired.append(claim, frame(1, outcome=COMPLETED)))
    await soon(late.met.wait())
    await stranger.request("STREAM.PURGE.POLOS_WORK")
    late.go_on.set()
    await soon(ending)
    assert len(wire.requests("STREAM.MSG.DELETE.POLOS_WORK")) == 1


async def test_a_request_that_nats_refuses_is_told_as_the_port_has_it(
    one: NatsStore, stranger: Stranger
) -> None:
    await stranger.request("STREAM.DELETE.POLOS_WORK")
    with pytest.raises(StoreUnavailable, match="stream not found"):
        await soon(one.waiting())
