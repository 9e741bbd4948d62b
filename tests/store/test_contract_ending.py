"""The contract of every store: runs whose holder lets go of them, or does not end them."""

from __future__ import annotations

import asyncio
import json

import pytest

from polos.v1.run_pb2 import RunState
from polos_service.errors import Fenced
from polos_service.runs import executor as module
from polos_service.runs.frame import SECOND
from polos_service.store import ENDED, RunStore
from tests.support.runs import FakeClock, executing
from tests.support.stores import COMPLETED, PATIENCE, claimed, ended, frame, history, new_run, soon


class Ahead(FakeClock):
    """A clock that is set forward by hand; whoever sleeps does so for a moment only."""

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
    again = await soon(store.claim({"agent"}))
    marks = [json.loads(entry.private) for entry in await history(store, again)]
    told = {"epoch": claim.epoch, "failed": True} if failed else {"epoch": claim.epoch}
    assert marks[1] == {"released": told}


async def test_overdue_are_the_queued_at_once_and_the_held_much_later(store: RunStore) -> None:
    queued = [await store.create(new_run(deadline=at)) for at in (200, 100, 301)]
    held = [await claimed(store, deadline=at) for at in (50, 51)]
    await ended(store, deadline=1)
    await store.create(new_run())
    late = {queued[0], queued[1], held[0].run_id}
    assert set(await store.overdue(300, 50)) == {("default", run_id) for run_id in late}
    assert await store.overdue(99, 49) == []


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
