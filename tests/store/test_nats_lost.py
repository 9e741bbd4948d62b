"""Messages that are lost between a store and NATS, and a NATS that goes away."""

from __future__ import annotations

import asyncio

import pytest

from polos_client.errors import StoreUnavailable
from polos_service.store.nats import NatsStore
from tests.support.nats import NatsServer, queued_and_claimed, replica
from tests.support.nats_stranger import Stranger
from tests.support.nats_wire import Wire, answers, asked, heard, published
from tests.support.stores import (
    ALL,
    COMPLETED,
    cancel,
    claimed,
    first_claim,
    frame,
    history,
    new_run,
    soon,
    spans,
    until,
)

appends = published("polos.log.")
"""What is appended to logs."""


@pytest.mark.parametrize("behind", ["nothing", "a foreign message"])
async def test_a_lost_acknowledgement_is_no_fence_and_no_second_frame(
    wire: Wire, wired: NatsStore, stranger: Stranger, behind: str
) -> None:
    claim = await claimed(wired)
    lost = wire.lose(answers(appends), times=1)
    appending = asyncio.ensure_future(wired.append(claim, frame(1, 3, b"once")))
    await soon(lost.met.wait())
    if behind != "nothing":
        await stranger.store(next(filter(appends, wire.sent)).subject)
    await soon(appending)
    await wired.append(claim, frame(4, outcome=COMPLETED))
    assert await spans(wired, claim) == [(1, 3), (4, 4)]


async def test_an_append_that_was_given_up_but_stored_is_seen_at_the_release(
    wire: Wire, hasty: NatsStore, other: NatsStore
) -> None:
    claim = await queued_and_claimed(hasty)
    lost = wire.lose(answers(appends))
    with pytest.raises(StoreUnavailable):
        await hasty.append(claim, frame(1))
    lost.end()
    await hasty.release(claim)
    again = await soon(first_claim(other, {"agent"}))
    assert (again.run_id, again.latest) == (claim.run_id, 1)


async def test_a_server_that_goes_and_comes_back_is_waited_for(nats_server: NatsServer) -> None:
    writer, reader = await replica(nats_server), await replica(nats_server)
    claim = await queued_and_claimed(writer)
    await writer.append(claim, frame(1))
    waiting = asyncio.create_task(reader.wait("default", claim.run_id, 1))
    await asyncio.sleep(0)
    await asyncio.to_thread(nats_server.stop)
    assert not await writer.healthy()
    appending = asyncio.ensure_future(writer.append(claim, frame(2, outcome=COMPLETED)))
    done, _ = await asyncio.wait({appending, waiting}, timeout=0.5)
    assert not done
    await asyncio.to_thread(nats_server.start)
    await soon(asyncio.gather(appending, waiting))
    assert await writer.healthy()
    found = await reader.read("default", claim.run_id, 1, ALL)
    assert (found.latest, found.ended) == (2, True)
    assert await spans(writer, claim) == [(1, 1), (2, 2)]
    run_id = await reader.create(new_run())
    assert (await soon(first_claim(writer, {"agent"}))).run_id == run_id
    for store in (writer, reader):
        await store.close()


async def test_beyond_its_bound_an_absent_nats_is_told(nats_server: NatsServer) -> None:
    store = await replica(nats_server, patience=0.5)
    claim = await claimed(store)
    await asyncio.to_thread(nats_server.stop)
    with pytest.raises(
        StoreUnavailable, match=rf"127.0.0.1:{nats_server.port}.*Check that"
    ) as told:
        await soon(store.append(claim, frame(1)))
    assert "nats://" in str(told.value)
    with pytest.raises(StoreUnavailable):
        await soon(store.get("default", claim.run_id))
    await soon(store.close())
    with pytest.raises(StoreUnavailable, match="does not respond"):
        await soon(replica(nats_server, patience=0.5))


async def test_what_was_given_up_while_nats_was_away_is_not_sent_when_it_is_back(
    nats_server: NatsServer, wire: Wire, hasty: NatsStore
) -> None:
    claim = await claimed(hasty)
    await asyncio.to_thread(nats_server.stop)
    with pytest.raises(StoreUnavailable):
        await hasty.append(claim, frame(1))
    with pytest.raises(StoreUnavailable):
        await hasty.read("default", claim.run_id, 0, 1)
    before, subscribed = len(wire.sent), len(wire.subscribed)
    await asyncio.to_thread(nats_server.start)
    async with asyncio.timeout(60):
        while not await hasty.healthy():
            await asyncio.sleep(0.05)
    assert not [one for one in wire.sent[before:] if one.subject.startswith("polos.log.")]
    again = wire.subscribed[subscribed:]
    assert not [subject for subject in again if subject.startswith("polos.new.")]


async def test_what_a_lost_connection_may_have_swallowed_is_asked_for_again(
    wire: Wire, wired: NatsStore
) -> None:
    claim = await claimed(wired)
    for number in range(1, 4):
        await wired.append(claim, frame(number, data=b"%d" % number))
    pages = answers(asked("DIRECT.GET.POLOS_LOG"))
    wire.lose(lambda message: pages(message) and message.payload == b"2", times=1)
    end = wire.hold(lambda message: pages(message) and b"Nats-Sequence" not in message.headers)
    reading = asyncio.create_task(history(wired, claim))
    await soon(end.met.wait())
    wire.cut()
    await until(lambda: wire.connections > 1)
    await until(lambda: wire.subscribed.count("polos.work.>") > 1)
    end.go_on.set()
    assert [entry.data for entry in await soon(reading)] == [b"", b"1", b"2", b"3"]


async def test_a_command_is_heard_of_only_when_it_was_stored(
    wire: Wire, wired: NatsStore, other: NatsStore, stranger: Stranger
) -> None:
    claim = await claimed(wired)
    (subject,) = [one for one in wire.subscribed if "inbox" in one.lower() and "polos" in one]
    hearing = asyncio.create_task(stranger.hear(subject))
    await stranger.request("INFO")  # behind the subscription
    await other.command("default", claim.run_id, cancel(claim.run_id))
    assert "Nats-Sequence" in ((await soon(hearing)).headers or {})


async def test_a_cancellation_whose_nudge_is_missed_is_found_at_a_renewal(
    wire: Wire, wired: NatsStore, other: NatsStore
) -> None:
    claim = await queued_and_claimed(wired)
    nudge = wire.lose(heard("polos.inbox."))
    arriving = asyncio.create_task(wired.commands(claim, 0))
    await asyncio.sleep(0)
    await other.command("default", claim.run_id, cancel(claim.run_id))
    assert list(await soon(arriving)) == [cancel(claim.run_id)]
    assert nudge.met.is_set()


async def test_a_reader_that_missed_its_wake_up_finds_what_was_stored(
    wire: Wire, wired: NatsStore, other: NatsStore
) -> None:
    claim = await claimed(other)
    wire.lose(heard("polos.new."))
    waiting = asyncio.create_task(wired.wait("default", claim.run_id, 0))
    await other.append(claim, frame(1))
    await soon(waiting)
    assert [part.first for part in (await wired.read("default", claim.run_id, 0, 1)).frames] == [1]
