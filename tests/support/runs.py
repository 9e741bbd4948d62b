"""Runs without a server: a writer, a context or an executor on the real store."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from google.protobuf.message import Message
from structlog.testing import capture_logs

from polos.v1.event_pb2 import Event, TextDelta, WorkflowFinish, WorkflowStart
from polos_client.errors import StoreUnavailable
from polos_service.errors import Unable
from polos_service.runs import executor as executor_module
from polos_service.runs.attempt import Attempt, StepOutput
from polos_service.runs.clock import Clock, SystemClock
from polos_service.runs.context import RunContext
from polos_service.runs.executor import Executor
from polos_service.runs.journals import Journals
from polos_service.runs.runnable import Runnable, RunRequest
from polos_service.runs.writer import Writer
from polos_service.store import Claim, Frame, RunStore
from polos_service.store.sqlite import SqliteStore
from tests.support.stores import new_run, soon, until

DONE = WorkflowFinish(result_json='"done"')
"""A terminal event's payload."""


class FakeClock:
    """A clock that moves only when somebody sleeps, and then at once."""

    def __init__(self) -> None:
        self.time = 1_700_000_000_000_000_000
        self.slept: list[float] = []

    def now(self) -> int:
        return self.time

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.time += int(seconds * 1_000_000_000)
        await asyncio.sleep(0)


class SetClock(SystemClock):
    """The machine's clock, which can be set: sleeps end by it, too.

    `shift` are the nanoseconds by which it is ahead, `asked` the seconds of all sleeps.
    """

    def __init__(self) -> None:
        self.shift = 0
        self.asked: list[float] = []

    def now(self) -> int:
        return super().now() + self.shift

    async def sleep(self, seconds: float) -> None:
        self.asked.append(seconds)
        until = self.now() + round(seconds * 1_000_000_000)
        while self.now() < until:
            await super().sleep(min(seconds, 0.001))


@asynccontextmanager
async def opened(folder: Path) -> AsyncIterator[SqliteStore]:
    """Open a store, and close it."""
    store = await SqliteStore.open(folder / "runs.db")
    try:
        yield store
    finally:
        await store.close()


@asynccontextmanager
async def writing(store: RunStore, claim: Claim, clock: Clock) -> AsyncIterator[Writer]:
    """Give a writer that appends until the end of the block."""
    writer = Writer(store, claim, clock)
    try:
        yield writer
    finally:
        writer.close()


@asynccontextmanager
async def context(
    store: RunStore, claim: Claim, clock: Clock | None = None
) -> AsyncIterator[RunContext]:
    """Give the context of a claimed run."""
    clock = clock or SystemClock()
    journals = await Journals.load(claim.run_id, store.history(claim))
    async with writing(store, claim, clock) as writer:
        yield RunContext.of_root(claim, journals, writer, clock, go_on)


async def go_on(reason: Unable | StoreUnavailable | None) -> None:
    """Be a boundary at which nothing lets go of the run, unless it cannot go on: then raise."""
    if reason is not None:
        raise reason


@asynccontextmanager
async def executing(
    store: RunStore,
    runnables: Mapping[str, Runnable],
    *,
    limit: int = 10,
    clock: Clock | None = None,
) -> AsyncIterator[Executor]:
    """Give an executor that takes up runs; at the end it lets go of them."""
    executor = Executor(store, runnables, clock or SystemClock(), limit)
    executor.start()
    try:
        yield executor
    finally:
        await executor.stop(0)


@dataclass(frozen=True)
class Code:
    """A function of a context as a runnable, which ends with a payload."""

    function: Callable[[RunContext], Awaitable[object]]
    payload: Message = field(default_factory=lambda: DONE)
    kind: str = "workflow"
    id: str = "agent"
    timeout: float | None = None
    work_limit: float | None = None
    version: bytes | None = None
    """The definitions that are of this version of the code; None: all are."""

    def pin(self, request: RunRequest) -> bytes:
        return b"{}"

    def other_version(self, pinned: bytes) -> str | None:
        return None if self.version is None or pinned == self.version else pinned.decode()

    async def first(self, pinned: bytes) -> Message:
        return WorkflowStart()

    async def run(self, ctx: RunContext, pinned: bytes) -> Message:
        await self.function(ctx)
        return self.payload


def runnable(function: Callable[[RunContext], Awaitable[object]]) -> Mapping[str, Runnable]:
    """Return a function of a context as the workflow `agent`, which ends with DONE."""
    return {"agent": Code(function)}


def text(content: str, attempt: Attempt | None = None) -> TextDelta:
    """Return the payload of a piece of text."""
    if attempt is None:
        return TextDelta(content=content)
    return TextDelta(content=content, step_key=attempt.key, attempt=attempt.number)


async def done(_attempt: Attempt) -> StepOutput:
    """Do nothing: the body of a step."""
    return StepOutput(result_json="1")


def kinds(events: list[Event]) -> list[str]:
    """Return the kinds of events, with the step's key and attempt where they have one."""
    return [kind(event) for event in events]


def kind(event: Event) -> str:
    """Return the kind of an event: `step_start llm:1/1`, for example."""
    name = event.WhichOneof("payload")
    assert name is not None
    payload = getattr(event, name)
    if not hasattr(payload, "step_key"):
        return name
    return f"{name} {payload.step_key}/{payload.attempt}"


@asynccontextmanager
async def resting(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[tuple[Executor, str]]:
    """Give an executor and a run that rests for long, as the store refuses all but its end."""
    monkeypatch.setattr(executor_module, "RETRY_PAUSE", 1000.0)
    monkeypatch.setattr(executor_module, "RETRY_PAUSE_LIMIT", 1000.0)
    append, refused = store.append, asyncio.Event()

    async def refuse(claim: Claim, frame: Frame, private: bytes = b"") -> None:
        if frame.outcome is None:
            refused.set()
            raise ValueError("a defect of the store")
        await append(claim, frame, private)

    monkeypatch.setattr(store, "append", refuse)

    async def run(ctx: RunContext) -> None:
        await ctx.step("a", "tool", done)

    with capture_logs():
        async with executing(store, runnable(run)) as executor:
            run_id = await store.create(new_run())
            await soon(refused.wait())
            await until(lambda: executor.running == 0)
            yield executor, run_id
