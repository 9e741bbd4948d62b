"""Runs that their holder does not end are ended by anybody, on every store."""

from __future__ import annotations

import asyncio

import pytest

from polos.v1.run_pb2 import RunState
from polos_service.runs import executor as module
from polos_service.runs.frame import SECOND
from polos_service.store import ENDED, RunStore
from tests.support.runs import FakeClock, executing
from tests.support.stores import PATIENCE, claimed, frame


class Ahead(FakeClock):
    """A clock that is set forward by hand; whoever sleeps does so for a moment only."""

    ahead = 0

    def now(self) -> int:
        return super().now() + self.ahead

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(min(seconds, 0.01))


async def ended(store: RunStore, run_id: str) -> RunState.ValueType:
    """Return the state that the run ended in."""
    async with asyncio.timeout(PATIENCE):
        while (state := (await store.get("default", run_id)).state) not in ENDED:
            await asyncio.sleep(0.01)
    return state


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
        assert await ended(store, claim.run_id) == state
    await store.delete("default", claim.run_id)
