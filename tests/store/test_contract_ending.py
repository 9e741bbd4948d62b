"""The contract of every store: runs whose holder lets go of them, or does not end them."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable

import pytest

from polos.v1.run_pb2 import RunState
from polos_service.errors import Fenced
from polos_service.runs import executor as module
from polos_service.runs.clock import SystemClock
from polos_service.runs.frame import SECOND
from polos_service.store import CANCEL, ENDED, Command, Overdue, RunStore
from tests.support.runs import executing
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


class Ahead(SystemClock):
    """The machine's clock, set forward by hand; whoever sleeps does so for a moment only."""

    ahead = 0

    def now(self) -> int:
        return super().now() + self.ahead

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(min(seconds, 0.01))


async def outcome(store: RunStore, run_id: str) -> RunState.ValueType:
    """Return the state that the run ended in."""
    async with asyncio.timeout(PATIENCE):
        while (state := (await store.get("default", run_id)).state) not in ENDED:
            await asyncio.sleep(0.01)
    return state


async def overdue(store: RunStore, now: int, stuck: int) -> set[tuple[str, bool]]:
    """Return id of the runs that are overdue, and whether somebody holds each."""
    found = await store.overdue(now, stuck)
    ids = {(one.run_id, one.held) for one in found}
    assert {*found} == {
        Overdue(project="default", run_id=run_id, held=held) for run_id, held in ids
    }
    return ids


async def test_a_forced_claim_takes_a_run_from_its_holder(store: RunStore) -> None:
    held = await claimed(store, workflow_id="nobody has it")
    await store.append(held, frame(1, data=b"\xff not a frame"))
    assert await store.claim_run("default", held.run_id) is None
    forced = await store.claim_run("default", held.run_id, force=True)
    assert forced is not None
    assert (forced.latest, forced.epoch) == (1, held.epoch + 1)
    with pytest.raises(Fenced):
        await store.append(held, frame(2))
    await store.append(forced, frame(2, outcome=COMPLETED))
    assert (await store.get("default", held.run_id)).state == COMPLETED


async def test_a_forced_claim_takes_what_is_queued_and_nothing_that_ended(
    store: RunStore,
) -> None:
    over = await ended(store)
    queued = await store.create(new_run())
    assert await store.claim_run("default", queued, force=True) is not None
    assert await store.claim_run("default", over.run_id, force=True) is None
    assert await store.claim_run("default", "nothing", force=True) is None
    assert await store.claim_run("other", queued, force=True) is None


@pytest.mark.parametrize("failed", [False, True])
async def test_the_log_tells_how_a_claim_ended(store: RunStore, *, failed: bool) -> None:
    claim = await claimed(store)
    await store.release(claim, failed=failed)
    again = await soon(first_claim(store, {"agent"}))
    marks = [json.loads(entry.private) for entry in await history(store, again)]
    told = {"epoch": claim.epoch, "failed": True} if failed else {"epoch": claim.epoch}
    assert marks[1] == {"released": told}


async def test_overdue_are_the_queued_at_once_and_the_held_much_later(store: RunStore) -> None:
    queued = [await store.create(new_run(deadline=at)) for at in (200, 100, 301)]
    held = [await claimed(store, deadline=at) for at in (50, 51)]
    await ended(store, deadline=1)
    await store.create(new_run())
    late = {(queued[0], False), (queued[1], False), (held[0].run_id, True)}
    assert await overdue(store, 300, 50) == late
    assert await overdue(store, 99, 49) == set()


async def test_a_cancelled_run_is_overdue_at_once_or_later_if_it_is_held(store: RunStore) -> None:
    before = time.time_ns()
    queued = await store.create(new_run())
    held = await claimed(store, deadline=before + 10**15)
    released = await claimed(store)
    over = await claimed(store)
    await store.create(new_run())
    for run_id in (queued, held.run_id, released.run_id, over.run_id):
        await store.command("default", run_id, cancel(run_id))
        await store.command("default", run_id, cancel(run_id))
    await store.release(released)
    await store.append(over, frame(1, outcome=COMPLETED))
    now = time.time_ns() + SECOND
    at_once = {(queued, False), (released.run_id, False)}
    assert await overdue(store, now, before - SECOND) == at_once
    now += 10**10
    assert await overdue(store, now, now) == {*at_once, (held.run_id, True)}


async def test_a_cancelled_run_is_overdue_after_a_restart(
    open_store: Callable[[], Awaitable[RunStore]],
) -> None:
    store = await open_store()
    queued, held = await store.create(new_run()), await claimed(store)
    for run_id in (queued, held.run_id):
        await store.command("default", run_id, cancel(run_id))
    await store.close()
    store = await open_store()
    try:
        now = time.time_ns() + SECOND
        assert {run_id for run_id, _ in await overdue(store, now, now)} == {queued, held.run_id}
    finally:
        await store.close()


async def test_only_a_cancel_of_the_root_makes_a_run_overdue(store: RunStore) -> None:
    claim = await claimed(store)
    for command in (
        Command(id="1", kind="note", run_id=claim.run_id),
        Command(id="2", kind=CANCEL, run_id=f"{claim.run_id}:1"),
    ):
        await store.command("default", claim.run_id, command)
    now = time.time_ns() + SECOND
    assert await overdue(store, now, now) == set()


@pytest.mark.parametrize("held", [False, True], ids=["queued", "held"])
async def test_a_cancellation_on_disk_is_carried_out_by_whoever_opens_the_store(
    open_store: Callable[[], Awaitable[RunStore]], *, held: bool
) -> None:
    store = await open_store()
    run_id = await store.create(new_run(workflow_id="nobody-has-it"))
    if held:
        assert await store.claim_run("default", run_id) is not None
    await store.command("default", run_id, cancel(run_id))
    await store.close()
    store = await open_store()
    try:
        clock = Ahead()
        async with executing(store, {}, clock=clock):
            clock.ahead = round((module.STUCK + 1) * SECOND)
            assert await outcome(store, run_id) == RunState.RUN_STATE_CANCELLED
    finally:
        await store.close()


@pytest.mark.parametrize(
    ("way", "state"),
    [("cancel", RunState.RUN_STATE_CANCELLED), ("deadline", RunState.RUN_STATE_FAILED)],
)
@pytest.mark.parametrize("data", [b"", b"\xff\xff"], ids=["empty", "damaged"])
async def test_a_run_that_nobody_here_can_run_and_its_holder_does_not_end(
    store: RunStore, way: str, state: RunState.ValueType, data: bytes
) -> None:
    clock = Ahead()
    deadline = clock.now() if way == "deadline" else None
    claim = await claimed(store, workflow_id="nobody-has-it", deadline=deadline)
    if data:
        await store.append(claim, frame(1, data=data))
    async with executing(store, {}, clock=clock) as executor:
        if way == "cancel":
            await executor.cancel("default", claim.run_id)
        clock.ahead = round((module.STUCK + 1) * SECOND)
        assert await outcome(store, claim.run_id) == state
    await store.delete("default", claim.run_id)
