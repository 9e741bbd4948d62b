"""Runs, frames and a store whose appends can be held back."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Awaitable, Callable, Collection
from pathlib import Path
from typing import Any, TypeVar

from polos.v1.event_pb2 import Event
from polos.v1.run_pb2 import RunState
from polos_service.runs.frame import decode
from polos_service.store import CANCEL, ENDED, Claim, Command, Entry, Frame, NewRun, RunStore
from polos_service.store.sqlite import SqliteStore

T = TypeVar("T")

PATIENCE = 60.0
"""Seconds after which a wait has failed: far more than any takes on a busy machine."""

COMPLETED = RunState.RUN_STATE_COMPLETED
ALL = 1 << 30
"""A limit in bytes that no test's log reaches."""

_numbers = itertools.count(1)


def new_run(**fields: Any) -> NewRun:
    """Return a run with an id that is greater than all before."""
    values = {
        "project": "default",
        "run_id": f"run-{next(_numbers):09}",
        "workflow_id": "agent",
        "request_id": None,
        "digest": b"digest",
        "definition": b"definition",
        "session_id": None,
        "user_id": None,
        "streaming": True,
        "create_time": time.time_ns(),
        "deadline": None,
    }
    return NewRun(**{**values, **fields})


def frame(first: int, last: int | None = None, data: bytes = b"x", outcome: Any = None) -> Frame:
    """Return a frame of arbitrary bytes."""
    return Frame(first=first, last=first if last is None else last, data=data, outcome=outcome)


def cancel(run_id: str) -> Command:
    """Return the command that cancels a root run."""
    return Command(id=CANCEL, kind=CANCEL, run_id=run_id)


async def claimed(store: RunStore, **fields: Any) -> Claim:
    """Create a run and claim it."""
    run = new_run(**fields)
    await store.create(run)
    claim = await store.claim_run(run.project, run.run_id)
    assert claim is not None
    return claim


async def first_claim(store: RunStore, workflows: Collection[str]) -> Claim:
    """Wait for a queued run of these workflows, and claim the oldest."""
    (claim,) = await store.claim(workflows, 1)
    return claim


async def ended(store: RunStore, **fields: Any) -> Claim:
    """Create a run and complete it with one frame."""
    claim = await claimed(store, **fields)
    await store.append(claim, frame(1, outcome=COMPLETED))
    return claim


async def history(store: RunStore, claim: Claim) -> list[Entry]:
    """Return the whole log with its private parts."""
    return [entry async for entry in store.history(claim)]


async def spans(store: RunStore, claim: Claim) -> list[tuple[int, int]]:
    """Return first and last sequence of each frame of the log."""
    found = await store.read(claim.project, claim.run_id, 0, ALL)
    return [(one.first, one.last) for one in found.frames]


async def soon(awaitable: Awaitable[T]) -> T:
    """Await, but not for ever."""
    return await asyncio.wait_for(awaitable, PATIENCE)


async def until(condition: Callable[[], bool]) -> None:
    """Wait until the condition holds, but not for ever."""
    async with asyncio.timeout(PATIENCE):
        while not condition():
            await asyncio.sleep(0.001)


async def settled() -> None:
    """Let every task that can go on do so."""
    for _ in range(20):
        await asyncio.sleep(0)


async def events_of(store: RunStore, run_id: str, project: str = "default") -> list[Event]:
    """Return the events that the log holds now."""
    frames: list[Frame] = []
    while found := (
        await store.read(project, run_id, frames[-1].last if frames else 0, ALL)
    ).frames:
        frames += found
    return decode(b"".join(one.data for one in frames))


async def all_events(store: RunStore, run_id: str, project: str = "default") -> list[Event]:
    """Return the events of a run when it has ended, and check what holds for every log."""
    async with asyncio.timeout(PATIENCE):
        while (await store.get(project, run_id)).state not in ENDED:
            latest = (await store.get(project, run_id)).latest
            await store.wait(project, run_id, latest)
    events = await events_of(store, run_id, project)
    assert [one.sequence for one in events] == list(range(1, len(events) + 1))
    assert [one.terminal for one in events] == [False] * (len(events) - 1) + [True]
    return events


class HeldStore(SqliteStore):
    """The real store; an append waits until it is allowed.

    `asked` are the frames of all appends so far, those that wait included.
    """

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.asked: list[Frame] = []
        self._permits = asyncio.Semaphore(0)
        self._all = False

    @classmethod
    async def open(cls, path: Path, *settings: Any) -> HeldStore:
        store = await super().open(path, *settings)
        assert isinstance(store, HeldStore)
        return store

    def allow(self, appends: int) -> None:
        """Let so many appends pass."""
        for _ in range(appends):
            self._permits.release()

    def hold(self) -> None:
        """Let no append pass from now on."""
        self._all = False
        self._permits = asyncio.Semaphore(0)

    def allow_all(self) -> None:
        """Let every append pass from now on."""
        self._all = True
        self.allow(len(self.asked))

    def append(self, claim: Claim, frame: Frame, private: bytes = b"") -> asyncio.Future[None]:
        self.asked.append(frame)
        return asyncio.ensure_future(self._append(claim, frame, private))

    async def _append(self, claim: Claim, frame: Frame, private: bytes) -> None:
        if not self._all:
            await self._permits.acquire()
        await super().append(claim, frame, private)
