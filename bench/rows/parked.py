"""What parked runs cost: a service that has nothing to do but to keep them, and waking them."""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import grpc.aio

from bench.processes import ROOT, Server, server
from bench.product import serving, settings
from bench.table import Goal, Row
from bench.waiting import waits, works
from polos.v1.event_pb2 import Event, Suspended, WaitKind, WorkflowStart
from polos.v1.run_pb2 import RunState
from polos.v1.run_service_pb2 import (
    CreateRunRequest,
    ListRunsRequest,
    StreamRunResponse,
    StreamWorkflowRequest,
)
from polos.v1.run_service_pb2_grpc import RunServiceStub
from polos_service.config import Settings
from polos_service.server import open_store
from polos_service.store import Frame, NewRun, RunStore
from polos_service.workflows.definition import Definition
from tests.support.nats import NatsServer

PARKED = 100_000
"""Runs that wait for a year."""

DUE = 1_000
"""Runs that wait for one instant, and runs that are started at once."""

AT_ONCE = 500
"""Runs that are written at a time while a store is filled: commits are shared."""

IDLE = 30.0
"""Seconds for which an idle service is measured."""

SOON = 90.0
"""Seconds after the store is filled at which the runs are due: the service is up long before."""

SECOND = 10**9
YEAR = 365 * 24 * 3600 * SECOND
MB = 1_000_000
COMPLETED = RunState.RUN_STATE_COMPLETED


@dataclass(frozen=True, slots=True)
class Idle:
    """An idle service: percent of a core, and MB of memory, those of the NATS server last."""

    cpu: float
    memory: float
    nats: float


def parked(upstream: Server, rounds: int) -> Row:
    """Keep and wake parked runs in a file."""
    return row("parked", upstream, rounds, nats=False)


def nats_parked(upstream: Server, rounds: int) -> Row:
    """Keep and wake parked runs on NATS JetStream."""
    return row("nats-parked", upstream, rounds, nats=True)


def row(name: str, upstream: Server, _rounds: int, *, nats: bool) -> Row:
    """Measure once: a store is filled for minutes."""
    where = "on NATS JetStream" if nats else "in a file"
    with tempfile.TemporaryDirectory(prefix="bench-", dir=ROOT / "bench") as folder:
        with (
            stored(Path(folder, "empty"), nats=nats) as (url, beside),
            up(url, upstream) as service,
        ):
            empty = idle(service, beside)
            started = asyncio.run(seconds_of_starts(service.address))
        with stored(Path(folder, "full"), nats=nats) as (url, beside):
            asyncio.run(fill(url, [time.time_ns() + YEAR] * PARKED))
            at = time.time_ns() + round(SOON * SECOND)
            due = asyncio.run(fill(url, [at] * DUE, first=PARKED))
            with up(url, upstream) as service:
                full = idle(service, beside)
                first, last = asyncio.run(woken(service.address, due))
    late, took = (first - at) / SECOND, (last - at) / SECOND
    goals = [
        Goal(
            text="CPU above an empty one's",
            figure=full.cpu - empty.cpu,
            bound=1,
            most=True,
            unit="%",
        ),
        Goal(
            text="memory above", figure=full.memory - empty.memory, bound=100, most=True, unit="MB"
        ),
        Goal(text="first wake after its time", figure=late, bound=1, most=True, unit="s"),
        Goal(
            text=f"{DUE:,} due at once, by {DUE:,} starts",
            figure=took / started,
            bound=1.5,
            most=True,
        ),
    ]
    if nats:
        above = full.nats - empty.nats
        goals.append(
            Goal(
                text="memory of the NATS server above",
                figure=above,
                bound=200,
                most=True,
                unit="MB",
            )
        )
    return Row(
        name=name,
        title=f"{PARKED:,} parked runs {where}: CPU of an idle service",
        unit="% of a core",
        figures={"polos": [full.cpu]},
        goals=goals,
        notes={f"{DUE:,} woken in s": took, f"{DUE:,} started and ended in s": started},
    )


@contextmanager
def stored(folder: Path, *, nats: bool) -> Iterator[tuple[str, NatsServer | None]]:
    """Give the address of a store, and the server that it is on."""
    folder.mkdir()
    if not nats:
        yield f"sqlite://{folder / 'runs.db'}", None
        return
    with NatsServer(folder) as beside:
        yield beside.url, beside


@contextmanager
def up(url: str, upstream: Server) -> Iterator[Server]:
    """Serve a store."""
    with server(*serving(url, "waiting.py"), **settings(upstream)) as service:
        yield service


def idle(service: Server, beside: NatsServer | None) -> Idle:
    """Measure a service that has nothing to do."""
    time.sleep(5)
    before = service.cpu
    time.sleep(IDLE)
    cpu = 100 * (service.cpu - before) / IDLE
    nats = 0.0 if beside is None else Server("", beside.pid).memory / MB
    return Idle(cpu, service.memory / MB, nats)


async def fill(url: str, wakes: Sequence[int], first: int = 0) -> list[str]:
    """Store runs that are parked until these times; return their ids."""
    store = await open_store(Settings(store=url, max_queued=2 * PARKED, synchronous="NORMAL"))
    ids = [f"parked-{first + index:09}" for index in range(len(wakes))]
    try:
        for begin in range(0, len(wakes), AT_ONCE):
            some = range(begin, min(begin + AT_ONCE, len(wakes)))
            await asyncio.gather(*(park(store, ids[index], wakes[index]) for index in some))
    finally:
        await store.close()
    return ids


async def park(store: RunStore, run_id: str, wake_at: int) -> None:
    """Store a run of `waits` as it stands when it was parked."""
    definition = Definition(
        workflow_id=waits.id,
        code_version=waits.version,
        payload_json=None,
        initial_state={},
        session_id=None,
        user_id=None,
    )
    now = time.time_ns()
    await store.create(
        NewRun(
            project="default",
            run_id=run_id,
            workflow_id=waits.id,
            request_id=None,
            digest=b"d" * 32,
            definition=definition.model_dump_json().encode(),
            session_id=None,
            user_id=None,
            streaming=False,
            create_time=now,
            deadline=None,
        )
    )
    claim = await store.claim_run("default", run_id)
    assert claim is not None
    nap = Suspended(step_key="nap", kind=WaitKind.WAIT_KIND_TIMER)
    nap.expire_time.FromNanoseconds(wake_at)
    events = [Event(workflow_start=WorkflowStart(code_version=waits.version)), Event(suspended=nap)]
    for sequence, event in enumerate(events, start=1):
        event.run_id, event.workflow_id, event.sequence = run_id, waits.id, sequence
        event.create_time.FromNanoseconds(now)
    data = StreamRunResponse(events=events).SerializeToString()
    await store.append(claim, Frame(first=1, last=2, data=data))
    assert await store.suspend(claim, wake_at=wake_at, seen=0, deadline=None)


async def seconds_of_starts(address: str) -> float:
    """Start runs at once, and return the seconds until all have ended."""
    async with grpc.aio.insecure_channel(address) as channel:
        runs = RunServiceStub(channel)
        begun = time.perf_counter()
        await asyncio.gather(
            *(runs.CreateRun(CreateRunRequest(agent_id=works.id)) for _ in range(DUE))
        )
        await completed(channel, DUE)
        return time.perf_counter() - begun


async def woken(address: str, due: Sequence[str]) -> tuple[int, int]:
    """Return when the first of the runs went on, and when all had ended."""
    async with grpc.aio.insecure_channel(address) as channel:
        last = await completed(channel, len(due))
        times = [await woken_at(channel, run_id) for run_id in due[:: len(due) // 20]]
        return min(times), last


async def completed(channel: grpc.aio.Channel, count: int) -> int:
    """Wait until so many runs have completed; return when, in nanoseconds since the epoch."""
    runs = RunServiceStub(channel)
    while True:
        found = 0
        token = ""
        while True:
            asked = ListRunsRequest(page_size=1000, state=COMPLETED, page_token=token)
            page = await runs.ListRuns(asked)
            found += len(page.runs)
            token = page.next_page_token
            if not token:
                break
        if found >= count:
            return time.time_ns()
        await asyncio.sleep(0.05)


async def woken_at(channel: grpc.aio.Channel, run_id: str) -> int:
    """Return when a run's wait ended."""
    log = RunServiceStub(channel).StreamWorkflow(StreamWorkflowRequest(workflow_run_id=run_id))
    return min(
        [
            event.create_time.ToNanoseconds()
            async for response in log
            for event in response.events
            if event.HasField("resumed")
        ]
    )
