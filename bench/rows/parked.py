"""What parked runs cost: a service that has nothing to do but to keep them, and waking them."""

from __future__ import annotations

import asyncio
import json
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import islice
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

import grpc.aio

from bench.processes import ROOT, Server, server
from bench.product import serving, settings
from bench.table import Goal, Row
from bench.waiting import asks, naps, works
from polos.v1.run_pb2 import Run, RunState
from polos.v1.run_service_pb2 import CreateRunRequest, GetRunRequest
from polos.v1.run_service_pb2_grpc import RunServiceStub
from tests.support.nats import NatsServer

if TYPE_CHECKING:
    from polos.v1.run_service_pb2_grpc import RunServiceAsyncStub

PARKED = 100_000
"""Runs that wait for a year: every other one for an answer too."""

DUE = 1_000
"""Runs that wait for one instant, and runs that are started at once."""

AT_ONCE, AT_A_TIME = 100, 20
"""Callers that fill a store, and runs that each of them starts before it waits for them."""

THRESHOLD = "0.2"
"""Seconds beyond which a wait suspends a run while a store is filled, in place of 10."""

IDLE = 30.0
"""Seconds for which an idle service is measured."""

SOON = timedelta(seconds=120)
"""How long after they are started runs are due: they are suspended long before."""

PAUSE = 0.25
"""Seconds between two looks at a run that has not come to what is waited for."""

YEAR = timedelta(days=365)
SECOND = 10**9
MB = 1_000_000
COMPLETED, SUSPENDED = RunState.RUN_STATE_COMPLETED, RunState.RUN_STATE_SUSPENDED


@dataclass(frozen=True, slots=True)
class Idle:
    """An idle service: percent of a core, and MB of memory, those of the NATS server last."""

    cpu: float
    memory: float
    nats: float


@dataclass(frozen=True, slots=True)
class Woken:
    """Seconds that runs took: to start and end, and those due to end; and the first one's delay."""

    started: float
    took: float
    late: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Measured:
    """What a round of measurements found.

    Attributes:
        empty: a service without runs.
        filled: seconds in which the runs were started and suspended.
        filler: the service that has started them, idle.
        full: another service that keeps them.
        woken: how runs were woken in it, in each round.

    """

    empty: Idle
    filled: float
    filler: Idle
    full: Idle
    woken: Sequence[Woken]


def parked(upstream: Server, rounds: int) -> Row:
    """Keep and wake parked runs in a file."""
    return row("parked", upstream, rounds, nats=False)


def nats_parked(upstream: Server, rounds: int) -> Row:
    """Keep and wake parked runs on NATS JetStream."""
    return row("nats-parked", upstream, rounds, nats=True)


def row(name: str, upstream: Server, rounds: int, *, nats: bool) -> Row:
    """Measure idle services once, for a store is filled for minutes, and wakes in rounds."""
    with tempfile.TemporaryDirectory(prefix="bench-", dir=ROOT / "bench") as folder:
        found = measured(Path(folder), upstream, rounds, nats=nats)
    where = "on NATS JetStream" if nats else "in a file"
    return Row(
        name=name,
        title=f"{PARKED:,} parked runs {where}: CPU of an idle service",
        unit="% of a core",
        figures={"polos": [found.full.cpu]},
        goals=[*goals(found), *([nats_goal(found)] if nats else [])],
        notes={
            "with none": found.empty.cpu,
            "where they were started": found.filler.cpu,
            "memory in MB": found.full.memory,
            "with none in MB": found.empty.memory,
            "where they were started in MB": found.filler.memory,
            f"{DUE:,} woken in s": median(one.took for one in found.woken),
            f"{DUE:,} started and ended in s": median(one.started for one in found.woken),
            "started and suspended per second": PARKED / found.filled,
        },
    )


def measured(folder: Path, upstream: Server, rounds: int, *, nats: bool) -> Measured:
    """Measure a service without runs, then one that fills a store, then one that keeps it."""
    with stored(folder / "empty", nats=nats) as (url, beside), up(url, upstream) as service:
        empty = idle(service, beside)
    with stored(folder / "full", nats=nats) as (url, beside):
        begun = time.monotonic()
        with up(url, upstream, POLOS_WAIT_THRESHOLD_SECONDS=THRESHOLD) as service:
            asyncio.run(fill(service.address))
            filled = time.monotonic() - begun
            filler = idle(service, beside)
        with up(url, upstream) as service:
            full = idle(service, beside)
            woken = [asyncio.run(wakes(service.address)) for _ in range(rounds)]
    return Measured(empty=empty, filled=filled, filler=filler, full=full, woken=woken)


def goals(found: Measured) -> list[Goal]:
    """Return what the parked runs may cost, wherever they are stored."""
    return [
        Goal(
            text="CPU above an empty one's",
            figure=found.full.cpu - found.empty.cpu,
            bound=1,
            most=True,
            unit="% of a core",
        ),
        Goal(
            text="memory above an empty one's",
            figure=found.full.memory - found.empty.memory,
            bound=100,
            most=True,
            unit="MB",
        ),
        Goal(
            text="first wake after its time",
            figure=median(one.late for one in found.woken),
            bound=1,
            most=True,
            unit="s",
        ),
        Goal(
            text=f"{DUE:,} due at once, by {DUE:,} starts",
            figure=median(one.took / one.started for one in found.woken),
            bound=1.5,
            most=True,
        ),
    ]


def nats_goal(found: Measured) -> Goal:
    """Return what the parked runs may cost the NATS server that stores them."""
    return Goal(
        text="memory of the NATS server above",
        figure=found.full.nats - found.empty.nats,
        bound=200,
        most=True,
        unit="MB",
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
def up(url: str, upstream: Server, **more: str) -> Iterator[Server]:
    """Serve a store."""
    with server(*serving(url, "waiting.py"), **settings(upstream), **more) as service:
        yield service


def idle(service: Server, beside: NatsServer | None) -> Idle:
    """Measure a service that has nothing to do."""
    time.sleep(10)
    before = service.cpu
    time.sleep(IDLE)
    cpu = 100 * (service.cpu - before) / IDLE
    nats = 0.0 if beside is None else Server("", beside.pid).memory / MB
    return Idle(cpu, service.memory / MB, nats)


async def fill(address: str) -> None:
    """Start runs, and return when all are suspended."""
    async with grpc.aio.insecure_channel(address) as channel:
        runs = RunServiceStub(channel)
        left = iter(range(PARKED))
        until = datetime.now(UTC) + YEAR

        async def some() -> None:
            while numbers := list(islice(left, AT_A_TIME)):
                ids = [asks.id if number % 2 else naps.id for number in numbers]
                started = [await start(runs, one, until) for one in ids]
                for run_id in started:
                    await came_to(runs, run_id, SUSPENDED, pause=3)

        await asyncio.gather(*(some() for _ in range(AT_ONCE)))


async def wakes(address: str) -> Woken:
    """Start runs at once, then runs that are due at once later, and measure both."""
    async with grpc.aio.insecure_channel(address) as channel:
        runs = RunServiceStub(channel)
        begun = time.time_ns()
        started = await completed(runs, await several(runs, works.id))
        at = datetime.now(UTC) + SOON
        due = await several(runs, naps.id, at)
        for run_id in due:
            await came_to(runs, run_id, SUSPENDED)
        left = at - datetime.now(UTC)
        assert left.total_seconds() > 1, "the runs were suspended too late"
        await asyncio.sleep(left.total_seconds())
        woken = await completed(runs, due)
    time_due = round(at.timestamp() * 1e6) * 1000
    return Woken(
        started=(max(started) - begun) / SECOND,
        took=(max(woken) - time_due) / SECOND,
        late=(min(woken) - time_due) / SECOND,
    )


async def several(
    runs: RunServiceAsyncStub, workflow_id: str, until: datetime | None = None
) -> list[str]:
    """Start runs at once, and return their ids."""
    return await asyncio.gather(*(start(runs, workflow_id, until) for _ in range(DUE)))


async def start(runs: RunServiceAsyncStub, workflow_id: str, until: datetime | None) -> str:
    """Start a run; `until` is the payload of one that naps."""
    asked = CreateRunRequest(agent_id=workflow_id)
    if workflow_id == naps.id and until is not None:
        asked.payload_json = json.dumps(until.isoformat())
    run_id: str = (await runs.CreateRun(asked)).run.run_id
    return run_id


async def completed(runs: RunServiceAsyncStub, run_ids: Sequence[str]) -> list[int]:
    """Return when each of the runs ended, in nanoseconds since the epoch, once all have.

    They are asked for one by one, so that the service has little to do with that.
    """
    ended = [await came_to(runs, run_id, COMPLETED) for run_id in run_ids]
    return [run.finish_time.ToNanoseconds() for run in ended]


async def came_to(
    runs: RunServiceAsyncStub, run_id: str, state: RunState.ValueType, pause: float = PAUSE
) -> Run:
    """Return a run once it has a state."""
    while True:
        run = (await runs.GetRun(GetRunRequest(run_id=run_id))).run
        if run.state == state:
            return run
        assert run.state != RunState.RUN_STATE_FAILED, run.outcome
        await asyncio.sleep(pause)
