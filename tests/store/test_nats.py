"""What holds for the NATS store beyond the contract: many replicas, and a NATS that goes away."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from typing import Any

import pytest
from nats.errors import TimeoutError as NatsTimeoutError

from polos.v1.run_pb2 import RunState
from polos_client.errors import RequestIdReused, RunExpired, StoreUnavailable, TooManyRuns
from polos_service.errors import Fenced
from polos_service.store import Claim, RunQuery
from polos_service.store.nats import NatsStore
from polos_service.store.nats.messages import StoredMessage
from polos_service.store.nats.records import Life
from polos_service.store.nats.subjects import log_subject
from tests.support.nats import CLAIM_TIMEOUT, NatsServer, replica
from tests.support.stores import (
    ALL,
    COMPLETED,
    cancel,
    claimed,
    ended,
    frame,
    history,
    new_run,
    soon,
    spans,
    until,
)


def hang(store: NatsStore) -> None:
    """Stop the renewals, as a process does that is dead or hangs."""
    assert store._claims._renewing is not None
    store._claims._renewing.cancel()


async def queued_and_claimed(store: NatsStore, **fields: Any) -> Claim:
    """Create a run and claim it by its work item, as the executor does."""
    await store.create(new_run(**fields))
    return await soon(store.claim({"agent"}))


async def test_a_start_at_one_replica_is_claimed_and_read_at_others(
    one: NatsStore, other: NatsStore
) -> None:
    claiming = asyncio.create_task(other.claim({"agent"}))
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
    one: NatsStore, other: NatsStore
) -> None:
    old = await queued_and_claimed(one)
    await one.append(old, frame(1))
    began = time.monotonic()
    hang(one)
    new = await soon(other.claim({"agent"}))
    assert time.monotonic() - began > CLAIM_TIMEOUT / 2, "it was taken from a living holder"
    assert (new.run_id, new.latest) == (old.run_id, 1)
    assert new.epoch > old.epoch
    with pytest.raises(Fenced):
        await one.append(old, frame(2, data=b"zombie", outcome=COMPLETED), b"private")
    await other.append(new, frame(2, data=b"holder"))
    await one.release(old)
    for store in (one, other):
        found = await store.read("default", old.run_id, 1, ALL)
        assert [part.data for part in found.frames] == [b"holder"]
        assert (await store.get("default", old.run_id)).state == RunState.RUN_STATE_RUNNING
    assert all(b"private" not in entry.private for entry in await history(other, new))


async def test_a_holder_learns_at_its_next_renewal_that_its_claim_was_lost(
    one: NatsStore, other: NatsStore
) -> None:
    old = await queued_and_claimed(one)
    obeying = asyncio.create_task(one.commands(old, 0))
    hang(one)
    await soon(other.claim({"agent"}))
    one._claims.start()
    with pytest.raises(Fenced):
        await soon(obeying)


async def test_an_item_found_late_takes_nothing_from_who_got_it_since(
    one: NatsStore, other: NatsStore
) -> None:
    claim = await queued_and_claimed(one)
    held = one._claims.find(claim)
    assert held is not None
    assert held.item is not None
    assert await other._claims.take(held.item) is None
    assert await other._claims.take(replace(held.item, delivery=2)) is not None
    with pytest.raises(Fenced):
        await one.append(claim, frame(1))


async def test_a_holder_that_renews_keeps_its_run(one: NatsStore, other: NatsStore) -> None:
    claim = await queued_and_claimed(one)
    claiming = asyncio.create_task(other.claim({"agent"}))
    done, _ = await asyncio.wait({claiming}, timeout=3 * CLAIM_TIMEOUT)
    assert not done
    await one.append(claim, frame(1))
    claiming.cancel()


async def test_a_run_claimed_past_the_queue_is_not_taken_from_its_holder(
    one: NatsStore, other: NatsStore
) -> None:
    claim = await claimed(one)
    claiming = asyncio.create_task(other.claim({"agent"}))
    done, _ = await asyncio.wait({claiming}, timeout=CLAIM_TIMEOUT / 2)
    assert not done
    await one.append(claim, frame(1, outcome=COMPLETED))
    run_id = await one.create(new_run())
    assert (await soon(claiming)).run_id == run_id, "of the one that ended, no item is left"


async def test_a_lost_acknowledgement_is_no_fence_and_no_second_frame(
    one: NatsStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    claim = await claimed(one)
    real = one._jetstream._ask
    lost: list[object] = []

    async def ask(subject: str, *args: Any) -> dict[str, Any]:
        answer = await real(subject, *args)
        if subject.startswith("polos.log.") and not lost:
            lost.append(answer)
            raise NatsTimeoutError
        return answer

    monkeypatch.setattr(one._jetstream, "_ask", ask)
    await one.append(claim, frame(1, 3, b"once"))
    await one.append(claim, frame(4, outcome=COMPLETED))
    assert lost
    assert await spans(one, claim) == [(1, 3), (4, 4)]


async def test_an_append_that_was_given_up_but_stored_is_seen_at_the_release(
    one: NatsStore, other: NatsStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    claim = await queued_and_claimed(one)
    real = one._jetstream._ask

    async def ask(subject: str, *args: Any) -> dict[str, Any]:
        answer = await real(subject, *args)
        if subject.startswith("polos.log."):
            raise StoreUnavailable("no acknowledgement in time")
        return answer

    monkeypatch.setattr(one._jetstream, "_ask", ask)
    with pytest.raises(StoreUnavailable):
        await one.append(claim, frame(1))
    monkeypatch.setattr(one._jetstream, "_ask", real)
    await one.release(claim)
    again = await soon(other.claim({"agent"}))
    assert (again.run_id, again.latest) == (claim.run_id, 1)


async def test_a_server_that_goes_and_comes_back_is_waited_for(nats_server: NatsServer) -> None:
    writer, reader = await replica(nats_server), await replica(nats_server)
    claim = await queued_and_claimed(writer)
    await writer.append(claim, frame(1))
    waiting = asyncio.create_task(reader.wait("default", claim.run_id, 1))
    await asyncio.sleep(0)
    await asyncio.to_thread(nats_server.stop)
    assert not await writer.healthy()
    appending = asyncio.create_task(writer.append(claim, frame(2, outcome=COMPLETED)))
    done, _ = await asyncio.wait({appending, waiting}, timeout=0.5)
    assert not done
    await asyncio.to_thread(nats_server.start)
    await soon(asyncio.gather(appending, waiting))
    assert await writer.healthy()
    found = await reader.read("default", claim.run_id, 1, ALL)
    assert (found.latest, found.ended) == (2, True)
    assert await spans(writer, claim) == [(1, 1), (2, 2)]
    run_id = await reader.create(new_run())
    assert (await soon(writer.claim({"agent"}))).run_id == run_id
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
    with pytest.raises(StoreUnavailable, match="does not answer"):
        await soon(replica(nats_server, patience=0.5))


async def test_a_cancellation_reaches_the_holder_at_another_replica(
    one: NatsStore, other: NatsStore
) -> None:
    claim = await queued_and_claimed(one)
    arriving = asyncio.create_task(one.commands(claim, 0))
    await other.command("default", claim.run_id, cancel(claim.run_id))
    assert list(await soon(arriving)) == [cancel(claim.run_id)]


async def test_a_cancellation_whose_nudge_is_missed_is_found_at_a_renewal(
    one: NatsStore, other: NatsStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    claim = await queued_and_claimed(one)
    monkeypatch.setattr(one._signals, "notify", lambda key: None)
    arriving = asyncio.create_task(one.commands(claim, 0))
    await asyncio.sleep(0)
    await other.command("default", claim.run_id, cancel(claim.run_id))
    assert list(await soon(arriving)) == [cancel(claim.run_id)]


async def test_a_reader_that_missed_its_wake_up_finds_what_was_stored(
    one: NatsStore, other: NatsStore
) -> None:
    claim = await claimed(one)
    tail = await other._feeds.of("default", claim.run_id)
    assert tail.news is not None
    await tail.news.unsubscribe()
    waiting = asyncio.create_task(other.wait("default", claim.run_id, 0))
    await one.append(claim, frame(1))
    await soon(waiting)
    assert [part.first for part in (await other.read("default", claim.run_id, 0, 1)).frames] == [1]


async def test_runs_of_an_agent_that_a_replica_has_not_loaded_stay_queued(
    one: NatsStore, other: NatsStore
) -> None:
    run_id = await one.create(new_run(workflow_id="rare"))
    mine = await one.create(new_run(workflow_id="agent"))
    assert (await soon(other.claim({"agent"}))).run_id == mine
    assert await one.waiting() == {"rare": 1}
    assert (await soon(one.claim({"rare"}))).run_id == run_id
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
    claim = await soon(other.claim({"agent"}))
    assert {claim.run_id} == ids
    await other.append(claim, frame(1, outcome=COMPLETED))
    assert await one.waiting() == {}


@pytest.mark.parametrize("done", ["request id", "record"])
async def test_a_repeated_start_completes_what_a_crash_left_out(one: NatsStore, done: str) -> None:
    first = new_run(request_id="r")
    await one._records.reserve(first)
    if done == "record":
        await one._records.create(first)
    assert await one.create(new_run(request_id="r")) == first.run_id
    assert (await soon(one.claim({"agent"}))).run_id == first.run_id


async def test_an_item_of_a_run_that_has_ended_mends_its_record(
    one: NatsStore, other: NatsStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    claim = await queued_and_claimed(one)

    async def crash(*args: object) -> None:
        raise StoreUnavailable("the process ended")

    monkeypatch.setattr(one._records, "finish", crash)
    await one.append(claim, frame(1, outcome=COMPLETED))
    assert (await other._records.get("default", claim.run_id)).life is Life.OPEN
    assert (await other.get("default", claim.run_id)).state == COMPLETED
    mine = await other.create(new_run(workflow_id="next"))
    claiming = asyncio.create_task(other.claim({"agent", "next"}))
    assert (await soon(claiming)).run_id == mine
    again = asyncio.create_task(other.claim({"agent"}))
    async with asyncio.timeout(60):
        while (await other._records.get("default", claim.run_id)).life is not Life.ENDED:
            await asyncio.sleep(0.05)
    assert not again.done()
    again.cancel()


async def test_a_queued_run_past_its_deadline_is_overdue_wherever_it_was_started(
    one: NatsStore, other: NatsStore
) -> None:
    now = time.time_ns()
    late = await one.create(new_run(workflow_id="rare", deadline=now))
    await one.create(new_run(workflow_id="rare", deadline=now + 10**12))
    held = await claimed(one, deadline=now)
    assert list(await other.overdue(now + 1, 0)) == [("default", late)]
    claim = await other.claim_run("default", late)
    assert claim is not None
    await other.append(claim, frame(1, outcome=RunState.RUN_STATE_FAILED))
    await one.release(held)
    assert list(await other.overdue(now + 10**11, 0)) == [("default", held.run_id)]


async def test_a_cursor_anywhere_in_a_long_log_among_others_is_found(
    one: NatsStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    claim, noise = await claimed(one), await claimed(one)
    for number in range(1, 401):
        await one.append(claim, frame(2 * number - 1, 2 * number, b"%d" % number))
        await one.append(noise, frame(number))
    for cursor in (0, 1, 2, 399, 400, 555, 798, 799):
        fresh = await soon(one._log.read(log_subject("default", claim.run_id), cursor, 1))
        assert [part.first for part in fresh] == [cursor // 2 * 2 + 1]
    searches: list[object] = []
    real = one._jetstream.next

    async def counted(*args: Any) -> StoredMessage | None:
        searches.append(args)
        return await real(*args)

    monkeypatch.setattr(one._jetstream, "next", counted)
    cursor = 100
    for _ in range(50):
        found = await one.read("default", claim.run_id, cursor, 1)
        cursor = found.frames[-1].last
    assert cursor == 200
    assert len(searches) <= 10, "who reads on does not search again"


async def test_a_replica_that_lags_behind_makes_no_hole_in_a_history(
    one: NatsStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    claim = await claimed(one)
    for number in range(1, 8):
        await one.append(claim, frame(number, data=b"%d" % number))
    real = one._jetstream.page

    async def holey(*args: Any) -> list[StoredMessage]:
        found = await real(*args)
        return found[:2] + found[3:-1]

    monkeypatch.setattr(one._jetstream, "page", holey)
    entries = await history(one, claim)
    assert [entry.data for entry in entries] == [b"", *(b"%d" % n for n in range(1, 8))]
    found = await one._log.read(log_subject("default", claim.run_id), 0, ALL)
    numbers = [part.first for part in found]
    assert numbers == list(range(1, len(numbers) + 1)), "a reader may see less, never a hole"
    assert numbers


async def test_a_definition_larger_than_a_message_is_whole(one: NatsStore) -> None:
    definition = bytes(range(256)) * 9000
    assert (await claimed(one, definition=definition)).definition == definition


async def test_a_removed_run_leaves_nothing_but_a_tombstone(
    one: NatsStore, other: NatsStore
) -> None:
    claim = await ended(one, request_id="r")
    run_id = (await claimed(one)).run_id
    await one.command("default", run_id, cancel(run_id))
    while await other.expire(time.time_ns()):
        pass
    with pytest.raises(RunExpired):
        await one.read("default", claim.run_id, 0, ALL)
    assert await one._log.last(log_subject("default", claim.run_id)) is None
    again = new_run(request_id="r", digest=b"digest")
    assert await one.create(again) == claim.run_id, "what expired is not started again"
    assert len(await other.list("default", RunQuery(limit=9))) == 1


async def test_an_expiry_that_stopped_half_way_is_gone_on_with(
    one: NatsStore, other: NatsStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    claim = await ended(one)

    async def crash(subject: str) -> None:
        raise StoreUnavailable("the process ended")

    monkeypatch.setattr(one._log, "remove", crash)
    with pytest.raises(StoreUnavailable):
        await one.expire(time.time_ns())
    with pytest.raises(RunExpired):
        await other.read("default", claim.run_id, 0, ALL)
    monkeypatch.setattr("polos_service.store.nats.upkeep.UNDER_WAY", 0)
    assert await other.expire(0)
    assert await other._log.last(log_subject("default", claim.run_id)) is None
    assert not await other.expire(0)


async def test_idle_readers_ask_nobody(one: NatsStore, other: NatsStore) -> None:
    claim = await claimed(one)
    await one.append(claim, frame(1))
    waits = [asyncio.create_task(other.wait("default", claim.run_id, 1)) for _ in range(50)]
    await until(lambda: ("default", claim.run_id) in other._feeds._feeds)
    tail = await other._feeds.of("default", claim.run_id)
    await until(lambda: tail.readers == 50)
    before = other._jetstream._connection.stats["out_msgs"]
    await asyncio.gather(*(other.read("default", claim.run_id, 1, ALL) for _ in range(50)))
    assert other._jetstream._connection.stats["out_msgs"] - before < 5
    await one.append(claim, frame(2))
    await soon(asyncio.gather(*waits))
    parts = await asyncio.gather(*(other.read("default", claim.run_id, 1, ALL) for _ in range(50)))
    assert all(list(part.frames) == [frame(2)] for part in parts)
    assert other._jetstream._connection.stats["out_msgs"] - before < 20, "one read for all of them"


async def test_a_start_beyond_the_bound_is_refused_until_a_run_is_taken_up(
    one: NatsStore, nats_server: NatsServer
) -> None:
    bounded = await NatsStore.open(nats_server.address(), max_queued=3)
    runs = [await bounded.create(new_run(request_id=f"r{n}")) for n in range(3)]
    with pytest.raises(TooManyRuns):
        await bounded.create(new_run(request_id="new"))
    assert await bounded.create(new_run(request_id="r0")) == runs[0], "it is repeated, not new"
    await soon(one.claim({"agent"}))
    await bounded.create(new_run(request_id="new", digest=b"other"))
    with pytest.raises(TooManyRuns):
        await bounded.create(new_run())
    await bounded.close()
