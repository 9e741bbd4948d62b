"""Runs that nobody can go on with: a damaged log, a store that cannot read it, a lost holder."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
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
from polos_service.store import Claim, Entry
from polos_service.store.sqlite import SqliteStore
from tests.support.runs import FakeClock, executing, runnable
from tests.support.stores import ALL, claimed, frame, new_run

INTERNAL = FailureReason.FAILURE_REASON_INTERNAL
QUEUED = RunState.RUN_STATE_QUEUED


pytestmark = pytest.mark.usefixtures("impatient")


async def damaged(
    store: SqliteStore, data: bytes = b"\xff\xff\xff", private: bytes = b"", **fields: Any
) -> str:
    """Store a run whose log has a frame that cannot be decoded, and queue it."""
    claim = await claimed(store, **fields)
    await store.append(claim, frame(1, data=data), private)
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


@pytest.mark.parametrize("private", [b"[[]]", b'{"step": []}', b'{"released": true}', b"7", b"{"])
async def test_a_run_with_a_damaged_private_line_can_be_cancelled(
    store: SqliteStore, private: bytes
) -> None:
    run_id = await damaged(store, data=b"", private=private, workflow_id="gone")
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
