"""Suspended runs on NATS: replicas that stop half-way, that race, and of former versions."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import orjson
import pytest

from polos.v1.run_pb2 import RunState
from polos_client.errors import StoreUnavailable
from polos_service.store import CANCEL, Claim, Command
from polos_service.store.nats import NatsStore
from polos_service.store.nats.agenda import Agenda
from polos_service.store.nats.subjects import (
    ALARMS,
    WAITS,
    WORK,
    alarm_subject,
    inbox_subject,
    work_subject,
)
from tests.support.nats import NatsServer, queued_and_claimed, replica
from tests.support.nats_stranger import Stranger
from tests.support.nats_wire import Wire, asked, published
from tests.support.stores import COMPLETED, first_claim, frame, soon, until

SECOND = 1_000_000_000

HOUR = 3600 * SECOND

SUSPENDED = RunState.RUN_STATE_SUSPENDED

removals = asked(f"STREAM.MSG.DELETE.{WORK}")
"""That a work item is removed."""

alarms = published("$KV.POLOS_ALARMS.")
"""That an alarm is set."""


def note(run_id: str, number: int = 1) -> Command:
    return Command(id=f"note-{number}", kind="note", run_id=run_id)


async def park(store: NatsStore, claim: Claim, wake_at: int | None, seen: int = 0) -> bool:
    return await store.suspend(claim, wake_at=wake_at, seen=seen, deadline=claim.deadline)


async def parked(store: NatsStore, wake_at: int | None = None, **fields: object) -> Claim:
    claim = await queued_and_claimed(store, **fields)
    await store.append(claim, frame(1))
    assert await park(store, claim, wake_at)
    return claim


async def until_suspended(store: NatsStore, run_id: str) -> None:
    async with asyncio.timeout(60):
        while (await store.get("default", run_id)).state != SUSPENDED:
            await asyncio.sleep(0.02)


@contextmanager
def former(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Have replicas read the marks of parks as former versions do."""
    with monkeypatch.context() as patched:
        patched.setattr("polos_service.store.nats.frames.parked_in", lambda _: None)
        yield


def later(monkeypatch: pytest.MonkeyPatch, nanoseconds: int) -> None:
    """Set the clock by which replicas wake runs forward."""
    shifted = lambda: time.time_ns() + nanoseconds  # noqa: E731
    monkeypatch.setattr("polos_service.store.nats.waker.time_ns", shifted)


@pytest.mark.parametrize("lost", [removals, alarms], ids=["item", "alarm"])
async def test_a_park_that_stopped_half_way_is_completed_by_who_gets_the_item(
    wire: Wire, hasty: NatsStore, other: NatsStore, stranger: Stranger, lost: object
) -> None:
    claim = await queued_and_claimed(hasty)
    claiming = asyncio.create_task(first_claim(other, {"agent"}))
    wire.lose(lost)  # type: ignore[arg-type]
    with pytest.raises(StoreUnavailable):
        await park(hasty, claim, time.time_ns() + HOUR)
    await stranger.empties(WORK)
    assert (await other.get("default", claim.run_id)).state == SUSPENDED
    assert await stranger.count(ALARMS) == 1
    assert not claiming.done(), "a run that only waits was taken up"
    await other.command("default", claim.run_id, note(claim.run_id))
    assert (await soon(claiming)).run_id == claim.run_id


async def test_a_run_whose_park_stopped_half_way_is_woken_at_its_time(
    wire: Wire, hasty: NatsStore, other: NatsStore
) -> None:
    claim = await queued_and_claimed(hasty)
    wire.lose(alarms)
    wake_at = time.time_ns() + SECOND
    with pytest.raises(StoreUnavailable):
        await park(hasty, claim, wake_at)
    assert (await soon(first_claim(other, {"agent"}))).run_id == claim.run_id
    assert time.time_ns() >= wake_at


async def test_a_command_between_mark_and_alarm_wakes_the_run(
    wire: Wire, wired: NatsStore, other: NatsStore, stranger: Stranger
) -> None:
    claim = await queued_and_claimed(wired)
    stopped = wire.hold(alarms)
    parking = asyncio.create_task(park(wired, claim, time.time_ns() + HOUR))
    await soon(stopped.met.wait())
    await other.command("default", claim.run_id, note(claim.run_id))
    stopped.go_on.set()
    assert await soon(parking)
    woken = await soon(first_claim(other, {"agent"}))
    assert woken.commands == (note(claim.run_id),)
    await other.append(woken, frame(1, outcome=COMPLETED))
    await stranger.empties(WORK)
    await stranger.empties(ALARMS)


async def test_a_command_whose_sender_died_before_the_mark_wakes_the_run(
    wire: Wire, wired: NatsStore, other: NatsStore
) -> None:
    claim = await queued_and_claimed(wired)
    stopped = wire.hold(published("polos.log."))
    parking = asyncio.create_task(park(wired, claim, None))
    await soon(stopped.met.wait())
    await other._inbox.put("default", claim.run_id, note(claim.run_id))
    stopped.go_on.set()
    assert await soon(parking)
    woken = await soon(first_claim(other, {"agent"}))
    assert woken.commands == (note(claim.run_id),)


async def test_a_command_whose_sender_died_behind_the_mark_is_found_by_upkeep(
    one: NatsStore, other: NatsStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    claim = await parked(one)
    await one._inbox.put("default", claim.run_id, note(claim.run_id))
    monkeypatch.setattr("polos_service.store.nats.upkeep.UNDER_WAY", -60)
    await other.overdue(time.time_ns(), 0)
    assert (await soon(first_claim(other, {"agent"}))).commands == (note(claim.run_id),)


async def test_upkeep_leaves_suspended_runs_alone(
    one: NatsStore, other: NatsStore, stranger: Stranger, monkeypatch: pytest.MonkeyPatch
) -> None:
    claim = await parked(one, time.time_ns() + HOUR)
    monkeypatch.setattr("polos_service.store.nats.upkeep.UNDER_WAY", -60)
    await other.overdue(time.time_ns(), 0)
    assert (await other.get("default", claim.run_id)).state == SUSPENDED
    assert await stranger.count(WORK) == 0


async def test_a_former_holder_that_goes_on_late_takes_nothing_from_the_next(
    wire: Wire, wired: NatsStore, other: NatsStore, stranger: Stranger
) -> None:
    claim = await queued_and_claimed(wired)
    late = wire.hold(removals)
    parking = asyncio.create_task(park(wired, claim, time.time_ns() + HOUR))
    await soon(late.met.wait())
    claiming = asyncio.create_task(first_claim(other, {"agent"}))
    await until_suspended(other, claim.run_id)
    await other.command("default", claim.run_id, note(claim.run_id))
    woken = await soon(claiming)
    late.go_on.set()
    assert await soon(parking)
    assert await stranger.count(WORK) == 1
    await other.append(woken, frame(1))
    assert (await wired.get("default", claim.run_id)).state == RunState.RUN_STATE_RUNNING


async def test_of_many_replicas_each_run_is_woken_once(
    one: NatsStore,
    other: NatsStore,
    nats_server: NatsServer,
    stranger: Stranger,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    third = await replica(nats_server)
    replicas = (one, other, third)
    wake_at = time.time_ns() + HOUR
    held = []
    for number in range(30):
        store = replicas[number % 3]
        held.append(await parked(store, wake_at, project=("default", "p")[number % 2]))
    assert await stranger.count(WORK) == 0
    woken = {}

    async def work(store: NatsStore) -> None:
        while True:
            claim = await first_claim(store, {"agent"})
            assert claim.run_id not in woken
            woken[claim.run_id] = claim.epoch
            await store.append(claim, frame(2, outcome=COMPLETED))

    later(monkeypatch, HOUR)
    working = [asyncio.create_task(work(store)) for store in replicas]
    await until(lambda: len(woken) == len(held))
    await stranger.empties(WORK)
    await stranger.empties(ALARMS)
    assert woken == {claim.run_id: claim.epoch + 1 for claim in held}
    assert not any(task.done() for task in working)
    for task in working:
        task.cancel()
    await third.close()


async def test_a_command_at_the_very_time_wakes_a_run_once(
    one: NatsStore, other: NatsStore, stranger: Stranger, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = [await parked(one, time.time_ns() + HOUR) for _ in range(20)]
    later(monkeypatch, HOUR)
    one._waker.look()
    sending = (other.command("default", claim.run_id, note(claim.run_id)) for claim in held)
    await asyncio.gather(*sending)
    woken = {(await soon(first_claim(one, {"agent"}))).run_id for _ in held}
    assert woken == {claim.run_id for claim in held}
    assert await stranger.count(WORK) == len(held)
    again = asyncio.create_task(first_claim(other, {"agent"}))
    await asyncio.wait({again}, timeout=0.2)
    assert not again.done()
    again.cancel()


async def test_runs_are_woken_by_replicas_that_were_not_there_when_they_were_suspended(
    one: NatsStore, nats_server: NatsServer
) -> None:
    gone = await replica(nats_server)
    claim = await parked(gone, time.time_ns() + SECOND, project="p")
    await gone.close()
    assert (await soon(first_claim(one, {"agent"}))).run_id == claim.run_id


async def test_a_run_that_is_due_while_nats_is_away_is_woken_when_it_is_back(
    one: NatsStore, nats_server: NatsServer
) -> None:
    claim = await parked(one, time.time_ns() + SECOND // 2)
    nats_server.stop()
    await asyncio.sleep(0.6)
    nats_server.start()
    assert (await soon(first_claim(one, {"agent"}))).run_id == claim.run_id


async def test_a_suspended_run_that_a_replica_of_0_1_0_cancels_is_overdue(
    one: NatsStore, stranger: Stranger
) -> None:
    claim = await parked(one, time.time_ns() + HOUR)
    await stranger.store(inbox_subject("default", claim.run_id), b'["cancel"]')
    (late,) = await one.overdue(time.time_ns(), 0)
    assert (late.run_id, late.held) == (claim.run_id, False)
    woken = await one.claim_run("default", claim.run_id)
    assert woken is not None
    assert [command.id for command in woken.commands] == [CANCEL]


async def test_a_former_version_takes_a_suspended_run_to_end_it(
    one: NatsStore, other: NatsStore, stranger: Stranger, monkeypatch: pytest.MonkeyPatch
) -> None:
    claim = await parked(one, time.time_ns() + HOUR)
    with former(monkeypatch):
        assert (await other.get("default", claim.run_id)).state == RunState.RUN_STATE_QUEUED
        ending = await other.claim_run("default", claim.run_id)
    assert ending is not None
    await other.append(ending, frame(2, outcome=RunState.RUN_STATE_CANCELLED))
    assert await stranger.count(ALARMS) == 1
    later(monkeypatch, HOUR)
    await stranger.empties(ALARMS)
    await stranger.empties(WORK)


async def test_a_run_that_a_former_version_queues_and_gives_back_goes_on(
    one: NatsStore, other: NatsStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its upkeep takes a suspended run for one that a crash left without an item."""
    claim = await parked(one, time.time_ns() + HOUR)
    monkeypatch.setattr("polos_service.store.nats.upkeep.UNDER_WAY", -60)
    with former(monkeypatch):
        await other.overdue(time.time_ns(), 0)
        theirs = await soon(first_claim(other, {"agent"}))
        assert theirs.run_id == claim.run_id
        await other.release(theirs)
    woken = await soon(first_claim(one, {"agent"}))
    assert woken.run_id == claim.run_id
    assert await park(one, woken, None)
    assert (await one.get("default", claim.run_id)).state == SUSPENDED


async def test_a_run_that_goes_on_leaves_no_alarm(one: NatsStore, stranger: Stranger) -> None:
    claim = await parked(one, time.time_ns() + HOUR)
    for number in range(3):
        assert await stranger.count(ALARMS) == 1
        await one.command("default", claim.run_id, note(claim.run_id, number))
        claim = await soon(first_claim(one, {"agent"}))
        await stranger.empties(ALARMS)
        assert await park(one, claim, time.time_ns() + HOUR, seen=number + 1)
    assert await stranger.count(ALARMS) == 1


async def test_a_removed_run_leaves_neither_alarm_nor_wait(
    one: NatsStore, stranger: Stranger
) -> None:
    claim = await queued_and_claimed(one)
    await one.append(claim, frame(1, outcome=COMPLETED))
    for subject in (
        alarm_subject("default", claim.run_id, 7),
        f"$KV.POLOS_WAITS.default.{claim.run_id}.1.1",
    ):
        await stranger.store(subject, b"left by a crash")
    await one.delete("default", claim.run_id)
    assert (await stranger.count(ALARMS), await stranger.count(WAITS)) == (0, 0)


@pytest.mark.parametrize(
    "payload",
    [
        b"garbage",
        b"{}",
        b"[1]",
        b'[1,"default","other",1]',
        b'["1","default","foreign",1]',
        b'[-1,"default","foreign",1]',
    ],
)
async def test_a_foreign_alarm_wakes_nobody(
    one: NatsStore, stranger: Stranger, payload: bytes
) -> None:
    await stranger.store(alarm_subject("default", "foreign", 1), payload)
    claim = await parked(one, time.time_ns() + SECOND // 10)
    assert (await soon(first_claim(one, {"agent"}))).run_id == claim.run_id


async def test_an_alarm_of_a_run_that_is_not_there_is_removed(
    one: NatsStore, stranger: Stranger
) -> None:
    await stranger.store(alarm_subject("default", "nothing", 1), b'[1,"default","nothing",1]')
    await stranger.empties(ALARMS)


@pytest.mark.parametrize("told", ["1 0", "1 0 x", "1 0 -1", "1 0 " + "9" * 19, "1 0 0 0"])
async def test_a_mark_with_a_park_of_another_form_is_foreign(
    one: NatsStore, stranger: Stranger, told: str
) -> None:
    claim = await queued_and_claimed(one)
    last = await one._log.last(f"polos.log.00000000.default.{claim.run_id}")
    assert last is not None
    headers = {
        "Polos-Frame": "1 0 1 0 1 someone released 0 0",
        "Nats-Expected-Last-Subject-Sequence": str(last.sequence),
        "Polos-Parked": told,
    }
    await stranger.store(f"polos.log.00000000.default.{claim.run_id}", b"", headers)
    await one.append(claim, frame(1, outcome=COMPLETED))
    assert (await one.get("default", claim.run_id)).state == COMPLETED


async def test_an_item_put_while_the_run_was_suspended_is_that_of_its_line(
    one: NatsStore, stranger: Stranger
) -> None:
    claim = await parked(one, project="p", deadline=time.time_ns() + HOUR)
    await one.command("p", claim.run_id, note(claim.run_id))
    item = await stranger.last(WORK, work_subject("agent", "p", claim.run_id))
    assert item == orjson.dumps(["p", claim.run_id, claim.deadline])
    assert (await soon(first_claim(one, {"agent"}))).project == "p"


async def test_runs_that_were_woken_and_wait_for_a_slot_are_not_queued_again(
    wire: Wire, wired: NatsStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("polos_service.store.nats.waker.LOOK_AGAIN", 0)
    claims = [await parked(wired, time.time_ns() + HOUR) for _ in range(5)]
    queued = {claim.run_id for claim in claims}
    later(monkeypatch, HOUR)
    async with asyncio.timeout(60):
        while (await wired.waiting()).get("agent") != len(claims):
            await asyncio.sleep(0.02)
    before = len(wire.sent)
    wired._waker.look()
    looked = asked("DIRECT.GET.KV_POLOS_RUNS")
    await until(lambda: sum(map(looked, wire.sent[before:])) >= 2)
    assert not [one for one in wire.sent[before:] if one.subject.startswith("polos.work.")]
    assert {(await soon(first_claim(wired, {"agent"}))).run_id for _ in claims} == queued


async def test_many_parks_of_one_run_are_remembered_as_those_of_one(
    one: NatsStore, other: NatsStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("polos_service.store.nats.agenda.SLACK", 5)
    await other._waker.close()
    agendas: list[Agenda[Any]] = [other._waker._agenda, other._due_runs._deadlines]
    for agenda in agendas:
        agenda._most = 5
    claim = await queued_and_claimed(one, deadline=time.time_ns() + 2 * HOUR)
    for number in range(30):
        assert await park(one, claim, time.time_ns() + HOUR, seen=number)
        await other._waker._agenda.read()
        await one.command("default", claim.run_id, note(claim.run_id, number))
        claim = await soon(first_claim(one, {"agent"}))
        await other.overdue(time.time_ns(), 0)
        assert max(map(len, agendas)) <= 10
    assert min(map(len, agendas)) > 0


async def test_upkeep_asks_for_parked_runs_together(
    wire: Wire, wired: NatsStore, one: NatsStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    claims = [await parked(one, time.time_ns() + HOUR) for _ in range(20)]
    lost = claims[7]
    await one._jetstream.purge(ALARMS, alarm_subject("default", lost.run_id, lost.epoch))
    await one._inbox.put("default", claims[8].run_id, note(claims[8].run_id))
    monkeypatch.setattr("polos_service.store.nats.upkeep.UNDER_WAY", -60)
    before = len(wire.sent)
    await wired._sweep.go_on()
    about = {
        one.run_id
        for one in claims
        if any(
            one.run_id in message.payload.decode(errors="replace")
            for message in wire.sent[before:]
            if message.subject.startswith("$JS.API.STREAM.MSG.GET")
        )
    }
    assert about == {claims[7].run_id, claims[8].run_id}
    assert (await soon(first_claim(wired, {"agent"}))).run_id == claims[8].run_id
    assert (
        await one._jetstream.last(ALARMS, alarm_subject("default", lost.run_id, lost.epoch))
        is not None
    )
