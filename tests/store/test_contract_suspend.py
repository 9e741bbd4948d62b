"""The contract of every store: runs that are suspended, and woken by a command or at their time."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable

import pytest

from polos.v1.run_pb2 import RunState
from polos_client.errors import RunNotFound
from polos_service.errors import Fenced
from polos_service.store import CANCEL, ENDED, PARKED, Claim, Command, RunQuery, RunStore
from tests.support.stores import (
    COMPLETED,
    PATIENCE,
    cancel,
    claimed,
    ended,
    first_claim,
    frame,
    history,
    new_run,
    soon,
)

SUSPENDED, QUEUED = RunState.RUN_STATE_SUSPENDED, RunState.RUN_STATE_QUEUED

SECOND = 1_000_000_000

HOUR = 3600 * SECOND

MANY = 300
"""Runs; more than either store wakes in one go."""


def now() -> int:
    return time.time_ns()


def note(run_id: str, number: int = 1, payload: bytes = b"") -> Command:
    return Command(id=f"note-{number}", kind="note", run_id=run_id, payload=payload)


async def taken(store: RunStore, **fields: object) -> Claim:
    """Create a run and claim it from the queue, as the executor does."""
    await store.create(new_run(**fields))
    return await soon(first_claim(store, {"agent"}))


async def park(store: RunStore, claim: Claim, wake_at: int | None = None, seen: int = 0) -> None:
    assert await store.suspend(claim, wake_at=wake_at, seen=seen, deadline=claim.deadline)


async def parked(store: RunStore, wake_at: int | None = None, **fields: object) -> Claim:
    """Create a run, and suspend it behind its first event."""
    claim = await taken(store, **fields)
    await store.append(claim, frame(1))
    await park(store, claim, wake_at)
    return claim


async def state(store: RunStore, claim: Claim) -> int:
    """Return the run's state, which `get` and `list` must agree about."""
    found = (await store.get(claim.project, claim.run_id)).state
    listed = await store.list(claim.project, RunQuery(limit=2000, state=found))
    assert claim.run_id in [one.run_id for one in listed]
    return found


async def nothing_queued(store: RunStore) -> None:
    """Check that no run is queued, and that none is claimed for a moment."""
    assert not await store.waiting()
    claiming = asyncio.create_task(first_claim(store, {"agent"}))
    await asyncio.wait({claiming}, timeout=0.1)
    assert not claiming.done()
    claiming.cancel()
    await asyncio.wait({claiming})


async def test_a_suspended_run_is_held_by_nobody_and_not_queued(store: RunStore) -> None:
    claim = await parked(store, now() + HOUR)
    assert await state(store, claim) == SUSPENDED
    await nothing_queued(store)
    assert await store.claim_run("default", claim.run_id) is None
    assert not await store.overdue(now() + 10 * HOUR, now() + 10 * HOUR)
    with pytest.raises(Fenced):
        await store.append(claim, frame(2))
    await store.release(claim)
    assert await state(store, claim) == SUSPENDED


async def test_a_run_is_woken_at_its_time(store: RunStore) -> None:
    wake_at = now() + SECOND // 4
    claim = await parked(store, wake_at)
    woken = await soon(first_claim(store, {"agent"}))
    assert now() >= wake_at
    assert (woken.run_id, woken.latest, woken.commands) == (claim.run_id, 1, ())
    assert woken.epoch > claim.epoch
    await store.append(woken, frame(2, outcome=COMPLETED))
    assert await state(store, woken) == COMPLETED
    await nothing_queued(store)


@pytest.mark.parametrize("wake_at", [0, 1, -1])
async def test_a_time_that_has_passed_wakes_at_once(store: RunStore, wake_at: int) -> None:
    claim = await parked(store, wake_at)
    assert (await soon(first_claim(store, {"agent"}))).run_id == claim.run_id


async def test_a_sooner_time_does_not_wait_for_a_later_one(store: RunStore) -> None:
    late = await parked(store, now() + HOUR)
    soonest = await parked(store, now() + SECOND // 10)
    assert (await soon(first_claim(store, {"agent"}))).run_id == soonest.run_id
    assert await state(store, late) == SUSPENDED


async def test_a_command_wakes_a_run(store: RunStore) -> None:
    claim = await parked(store, None)
    claiming = asyncio.create_task(first_claim(store, {"agent"}))
    await asyncio.sleep(0)
    sent = note(claim.run_id, payload=b"{}")
    assert await store.command("default", claim.run_id, sent) == sent
    woken = await soon(claiming)
    assert (woken.run_id, woken.commands) == (claim.run_id, (sent,))
    await store.append(woken, frame(2, outcome=COMPLETED))
    await nothing_queued(store)


async def test_a_woken_run_is_queued_until_it_is_claimed(store: RunStore) -> None:
    claim = await parked(store, now() + HOUR)
    await store.command("default", claim.run_id, note(claim.run_id))
    assert await state(store, claim) == QUEUED
    assert await store.waiting() == {"agent": 1}
    woken = await store.claim_run("default", claim.run_id)
    assert woken is not None
    assert woken.commands == (note(claim.run_id),)


async def test_a_repeated_command_wakes_a_run_again(store: RunStore) -> None:
    """So whoever repeats it, as its first sender died half-way, need not know how far it came."""
    claim = await parked(store)
    await store.command("default", claim.run_id, note(claim.run_id))
    woken = await soon(first_claim(store, {"agent"}))
    await park(store, woken, seen=1)
    assert await state(store, claim) == SUSPENDED
    assert await store.command("default", claim.run_id, note(claim.run_id)) == note(claim.run_id)
    assert (await soon(first_claim(store, {"agent"}))).run_id == claim.run_id


async def test_a_command_that_its_holder_has_not_seen_keeps_it_from_parking(
    store: RunStore,
) -> None:
    claim = await taken(store)
    for number in range(2):
        await store.command("default", claim.run_id, note(claim.run_id, number))
    assert not await store.suspend(claim, wake_at=None, seen=1, deadline=None)
    await store.append(claim, frame(1))
    assert await state(store, claim) == RunState.RUN_STATE_RUNNING
    await park(store, claim, seen=2)
    assert await state(store, claim) == SUSPENDED


async def test_a_command_beside_a_park_is_never_lost(store: RunStore) -> None:
    for _ in range(10):
        claim = await taken(store)
        sent = note(claim.run_id)
        parking, stands = await soon(
            asyncio.gather(
                store.suspend(claim, wake_at=None, seen=0, deadline=None),
                store.command("default", claim.run_id, sent),
            )
        )
        assert stands == sent
        held = await soon(first_claim(store, {"agent"})) if parking else claim
        assert held.run_id == claim.run_id
        assert list(await soon(store.commands(held, 0))) == [sent]
        await store.append(held, frame(1, outcome=COMPLETED))


async def test_a_suspended_run_is_cancelled(store: RunStore) -> None:
    claim = await parked(store, now() + HOUR)
    await store.command("default", claim.run_id, cancel(claim.run_id))
    (late,) = await store.overdue(now(), now() - HOUR)
    assert (late.run_id, late.held) == (claim.run_id, False)
    woken = await store.claim_run("default", claim.run_id)
    assert woken is not None
    assert [one.id for one in woken.commands] == [CANCEL]
    await store.append(woken, frame(2, outcome=RunState.RUN_STATE_CANCELLED))
    assert await state(store, claim) == RunState.RUN_STATE_CANCELLED
    await nothing_queued(store)


async def test_a_suspended_run_is_woken_at_its_deadline(store: RunStore) -> None:
    deadline = now() + SECOND // 4
    claim = await parked(store, None, deadline=deadline)
    assert claim.deadline == deadline
    woken = await soon(first_claim(store, {"agent"}))
    assert (woken.run_id, woken.deadline) == (claim.run_id, deadline)


async def test_a_park_may_move_the_deadline(store: RunStore) -> None:
    claim = await taken(store, deadline=now() + 60 * SECOND)
    deadline = now() + HOUR
    assert await store.suspend(claim, wake_at=1, seen=0, deadline=deadline)
    woken = await soon(first_claim(store, {"agent"}))
    assert woken.deadline == deadline
    assert not await store.overdue(deadline - 1, deadline - 1)
    (late,) = await store.overdue(deadline, deadline)
    assert (late.run_id, late.held) == (claim.run_id, True)
    assert await store.suspend(woken, wake_at=1, seen=0, deadline=None)
    assert (await soon(first_claim(store, {"agent"}))).deadline is None
    assert not await store.overdue(deadline + HOUR, deadline + HOUR)


async def test_a_former_holder_does_not_park(store: RunStore) -> None:
    old = await taken(store)
    new = await store.claim_run("default", old.run_id, force=True)
    assert new is not None
    with pytest.raises(Fenced):
        await store.suspend(old, wake_at=None, seen=0, deadline=None)
    await store.append(new, frame(1))
    assert await state(store, new) == RunState.RUN_STATE_RUNNING


async def test_a_run_is_parked_once(store: RunStore) -> None:
    claim = await parked(store)
    with pytest.raises(Fenced):
        await store.suspend(claim, wake_at=None, seen=0, deadline=None)
    over = await ended(store)
    with pytest.raises(Fenced):
        await store.suspend(over, wake_at=None, seen=0, deadline=None)


async def test_a_run_that_was_claimed_past_the_queue_is_parked(store: RunStore) -> None:
    claim = await claimed(store)
    await park(store, claim, now() + HOUR)
    assert await state(store, claim) == SUSPENDED
    await nothing_queued(store)
    await store.command("default", claim.run_id, note(claim.run_id))
    assert (await soon(first_claim(store, {"agent"}))).run_id == claim.run_id


async def test_a_run_is_parked_again_and_again(store: RunStore) -> None:
    claim = await taken(store, project="p")
    for number in range(1, 6):
        await store.append(claim, frame(number))
        await park(store, claim, now() + SECOND // 100 if number % 2 else None, seen=number // 2)
        if number % 2 == 0:
            await store.command("p", claim.run_id, note(claim.run_id, number))
        held = claim.epoch
        claim = await soon(first_claim(store, {"agent"}))
        assert (claim.latest, claim.epoch > held) == (number, True)
    await store.append(claim, frame(6, outcome=COMPLETED))
    await nothing_queued(store)


async def test_a_park_is_marked_in_the_log_as_a_release_that_lost_nothing(store: RunStore) -> None:
    claim = await parked(store, 1)
    woken = await soon(first_claim(store, {"agent"}))
    entries = await history(store, woken)
    lines = [json.loads(line) for one in entries for line in one.private.splitlines()]
    assert [one["released"] for one in lines if "released" in one] == [
        {"epoch": claim.epoch, PARKED: True}
    ]
    found = await store.read("default", claim.run_id, 0, 1000)
    assert (len(found.frames), found.latest, found.ended) == (1, 1, False)


async def test_a_reader_of_a_suspended_run_waits_for_its_next_event(store: RunStore) -> None:
    claim = await parked(store)
    waiting = asyncio.create_task(store.wait("default", claim.run_id, 1))
    await store.command("default", claim.run_id, note(claim.run_id))
    woken = await soon(first_claim(store, {"agent"}))
    assert not waiting.done()
    await store.append(woken, frame(2))
    await soon(waiting)


async def test_suspended_runs_do_not_count_as_queued(
    open_store: Callable[..., Awaitable[RunStore]],
) -> None:
    store = await open_store(max_queued=1)
    try:
        suspended = [await parked(store) for _ in range(3)]
        for claim in suspended:  # beyond the bound, as a release is
            await store.command("default", claim.run_id, note(claim.run_id))
        assert await store.waiting() == {"agent": 3}
    finally:
        await store.close()


async def test_suspended_runs_survive_a_restart(
    open_store: Callable[..., Awaitable[RunStore]],
) -> None:
    store = await open_store()
    timed, due, asked = [await parked(store, at) for at in (now() + HOUR, now() + SECOND, None)]
    await store.close()
    store = await open_store()
    try:
        assert (await soon(first_claim(store, {"agent"}))).run_id == due.run_id
        for claim in (timed, asked):
            assert await state(store, claim) == SUSPENDED
            await store.command("default", claim.run_id, note(claim.run_id))
            assert (await soon(first_claim(store, {"agent"}))).run_id == claim.run_id
    finally:
        await store.close()


async def test_a_run_whose_time_came_while_the_store_was_closed_is_woken(
    open_store: Callable[..., Awaitable[RunStore]],
) -> None:
    store = await open_store()
    claim = await parked(store, now() + SECOND // 2)
    await store.close()
    await asyncio.sleep(0.6)
    store = await open_store()
    try:
        assert (await soon(first_claim(store, {"agent"}))).run_id == claim.run_id
    finally:
        await store.close()


async def test_a_run_that_was_suspended_is_removed_when_it_has_ended(store: RunStore) -> None:
    claim = await parked(store, 1)
    woken = await soon(first_claim(store, {"agent"}))
    await park(store, woken, now() + HOUR)
    await store.command("default", claim.run_id, note(claim.run_id))
    woken = await soon(first_claim(store, {"agent"}))
    await store.append(woken, frame(2, outcome=COMPLETED))
    await store.delete("default", claim.run_id)
    with pytest.raises(RunNotFound):
        await store.get("default", claim.run_id)
    with pytest.raises(RunNotFound):
        await store.command("default", claim.run_id, note(claim.run_id))


async def test_many_runs_that_are_due_at_once_are_woken_once_each(store: RunStore) -> None:
    for _ in range(MANY // 20):
        await asyncio.gather(*(store.create(new_run()) for _ in range(20)))
    held: list[Claim] = []
    while len(held) < MANY:
        held += await soon(store.claim({"agent"}, 16))
    wake_at = now() + SECOND
    for start in range(0, MANY, 50):
        await asyncio.gather(*(park(store, one, wake_at) for one in held[start : start + 50]))
    woken: list[Claim] = []
    async with asyncio.timeout(PATIENCE):
        while len(woken) < MANY:
            woken += await store.claim({"agent"}, 16)
    assert {one.run_id for one in woken} == {one.run_id for one in held}
    await nothing_queued(store)


async def test_a_command_says_what_stands_in_its_place(store: RunStore) -> None:
    claim = await taken(store)
    first, second = note(claim.run_id, payload=b"1"), note(claim.run_id, payload=b"2")
    assert await store.command("default", claim.run_id, first) == first
    assert await store.command("default", claim.run_id, second) == first
    sent = [note(claim.run_id, 7, payload=b"%d" % number) for number in range(20)]
    answers = await asyncio.gather(*(store.command("default", claim.run_id, one) for one in sent))
    assert len(set(answers)) == 1, "two answers were accepted for one place"
    assert list(await store.inbox("default", claim.run_id)) == [first, answers[0]]
    assert await store.command("default", claim.run_id, cancel(claim.run_id)) == cancel(
        claim.run_id
    )
    await store.append(claim, frame(1, outcome=COMPLETED))
    assert (await store.get("default", claim.run_id)).state in ENDED
    assert await store.command("default", claim.run_id, second) is None
    assert list(await store.inbox("default", claim.run_id)) == []


async def test_the_inbox_of_an_unknown_run_is_refused(store: RunStore) -> None:
    with pytest.raises(RunNotFound):
        await store.inbox("default", "nothing")


async def test_a_suspended_run_is_woken_by_its_name(store: RunStore) -> None:
    claim = await parked(store)
    assert not await store.wake("default", "nobody")
    assert not await store.wake("other", claim.run_id)
    assert await state(store, claim) == SUSPENDED
    assert await store.wake(claim.project, claim.run_id)
    assert await state(store, claim) == QUEUED
    again = await soon(first_claim(store, {"agent"}))
    assert (again.run_id, again.latest) == (claim.run_id, 1)
    assert not await store.wake(claim.project, claim.run_id)
    assert await state(store, claim) == RunState.RUN_STATE_RUNNING
    await store.append(again, frame(2, outcome=COMPLETED))
    assert not await store.wake(claim.project, claim.run_id)
    assert await state(store, claim) == COMPLETED


async def test_who_waits_for_room_hears_of_runs_that_are_claimed(store: RunStore) -> None:
    heard: list[str] = []
    leave = store.on_room(lambda: heard.append("room"))
    run_id = await store.create(new_run())
    assert not heard
    assert (await soon(first_claim(store, {"agent"}))).run_id == run_id
    assert heard == ["room"]
    leave()
    await taken(store)
    assert heard == ["room"]
