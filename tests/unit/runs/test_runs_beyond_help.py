"""Runs that nobody can go on with: a damaged log, a store that cannot read it, a lost holder."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest
from structlog.testing import capture_logs

from polos.v1.error_pb2 import FailureReason
from polos.v1.event_pb2 import Event
from polos.v1.run_pb2 import RunState
from polos_client.errors import StoreUnavailable
from polos_service.runs import executor as module
from polos_service.runs.clock import SystemClock
from polos_service.runs.context import RunContext
from polos_service.runs.frame import SECOND, decode
from polos_service.store import Claim, Entry, Frame, Overdue
from polos_service.store.sqlite import SqliteStore
from tests.support.runs import FakeClock, executing, runnable
from tests.support.stores import ALL, cancel, claimed, frame, new_run, until

INTERNAL = FailureReason.FAILURE_REASON_INTERNAL
QUEUED = RunState.RUN_STATE_QUEUED


pytestmark = pytest.mark.usefixtures("impatient")


async def damaged(store: SqliteStore, **fields: Any) -> str:
    """Store a run whose log has a frame that cannot be decoded, and queue it."""
    claim = await claimed(store, **fields)
    await store.append(claim, frame(1, data=b"\xff\xff\xff"))
    await store.release(claim)
    return claim.run_id


async def never(_ctx: RunContext) -> None:
    raise AssertionError("nothing of it is to begin")


async def last_event(store: SqliteStore, run_id: str) -> Event:
    """Return the newest event, once the run has ended."""
    record = await store.get("default", run_id)
    async with asyncio.timeout(20):
        while record.state in (QUEUED, RunState.RUN_STATE_RUNNING):
            await asyncio.sleep(0.001)
            record = await store.get("default", run_id)
    part = await store.read("default", run_id, record.latest - 1, ALL)
    (event,) = decode(part.frames[0].data)
    return event


async def test_a_run_with_a_damaged_log_ends_and_can_be_deleted(store: SqliteStore) -> None:
    run_id = await damaged(store)
    with capture_logs() as logs:
        async with executing(store, runnable(never)):
            event = await last_event(store, run_id)
    assert event.error.reason == INTERNAL
    assert "cannot be read" in str(logs[0]["exc_info"])
    await store.delete("default", run_id)


async def test_a_run_with_a_damaged_log_can_be_cancelled(store: SqliteStore) -> None:
    run_id = await damaged(store, workflow_id="gone")
    async with executing(store, {}) as executor:
        await executor.cancel("default", run_id)
        assert (await last_event(store, run_id)).HasField("run_cancelled")


async def test_a_run_with_a_damaged_log_ends_at_its_deadline(store: SqliteStore) -> None:
    run_id = await damaged(store, workflow_id="gone", deadline=1)
    async with executing(store, {}, clock=Fast()):
        event = await last_event(store, run_id)
    assert event.error.reason == FailureReason.FAILURE_REASON_RUN_TIMEOUT


async def test_a_run_whose_log_the_store_cannot_read_ends(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def unreadable(_claim: Claim) -> AsyncIterator[Entry]:
        raise StoreUnavailable("a page is damaged")
        yield

    monkeypatch.setattr(store, "history", unreadable)
    with capture_logs():
        async with executing(store, runnable(never), clock=FakeClock()):
            run_id = await store.create(new_run())
            event = await last_event(store, run_id)
    assert event.error.reason == INTERNAL


class Fast(SystemClock):
    """The machine's clock, but whoever sleeps does so for a moment only."""

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(min(seconds, 0.001))


class Ahead(Fast):
    """A clock that can be set forward."""

    ahead = 0

    def now(self) -> int:
        return super().now() + self.ahead


@pytest.mark.parametrize("deadline", [None, 1], ids=["cancelled", "overdue"])
async def test_a_run_whose_holder_does_not_end_it_is_taken_from_it(
    store: SqliteStore, deadline: int | None
) -> None:
    claim = await claimed(store, workflow_id="gone", deadline=deadline)  # by nobody who drives it
    clock = Ahead()
    async with executing(store, {}, clock=clock) as executor:
        if deadline is None:
            await executor.cancel("default", claim.run_id)
        clock.ahead = round((module.STUCK + 1) * SECOND)
        event = await last_event(store, claim.run_id)
    assert event.WhichOneof("payload") == ("run_cancelled" if deadline is None else "error")


class Looks:
    """Counts the looks for overdue runs at a store, and claims what each found, if it is queued."""

    def __init__(self, store: SqliteStore, monkeypatch: pytest.MonkeyPatch) -> None:
        self.count = 0
        self.claims: list[Claim] = []
        self._store = store
        self._overdue = store.overdue
        monkeypatch.setattr(store, "overdue", self._look)

    async def _look(self, now: int, stuck: int) -> Sequence[Overdue]:
        found = await self._overdue(now, stuck)
        for one in found:
            claim = await self._store.claim_run(one.project, one.run_id)
            if claim is not None:
                self.claims.append(claim)
        self.count += 1
        return found


async def test_a_claim_between_a_look_and_what_follows_it_is_not_fenced(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks = Looks(store, monkeypatch)
    async with executing(store, {}, clock=Fast()):
        run_id = await store.create(new_run())
        await store.command("default", run_id, cancel(run_id))
        await until(lambda: bool(looks.claims))
        seen = looks.count
        await until(lambda: looks.count > seen + 2)
        (claim,) = looks.claims
        await store.append(claim, frame(1, outcome=RunState.RUN_STATE_CANCELLED))


class Resting(SystemClock):
    """A clock on which looks for overdue runs are all that goes on."""

    def __init__(self) -> None:
        self.looks = 0

    async def sleep(self, seconds: float) -> None:
        if seconds != module.EXPIRY_PERIOD:
            await asyncio.Event().wait()
        self.looks += 1
        await asyncio.sleep(0.001)


async def test_an_overdue_run_that_rests_here_is_not_claimed_at_each_look(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def refuse(_claim: Claim, _frame: Frame, _private: bytes = b"") -> None:
        raise StoreUnavailable("the log takes no end")

    monkeypatch.setattr(store, "append", refuse)
    clock = Resting()
    with capture_logs() as logs:
        async with executing(store, {}, clock=clock):
            run_id = await store.create(new_run(deadline=1))
            await until(lambda: bool(logs))
            seen = clock.looks
            await until(lambda: clock.looks > seen + 10)
    assert [(one["event"], one["run_id"]) for one in logs] == [("run_released", run_id)]
