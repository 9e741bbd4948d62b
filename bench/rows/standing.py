"""Costs that are there before anything runs: a full store, and an import."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

from bench.processes import ROOT, Server, environment, load, server
from bench.product import serving, settings
from bench.table import Goal, Row, Samples
from polos.v1.event_pb2 import AgentFinish, Event, TextDelta
from polos.v1.run_pb2 import RunState
from polos.v1.run_service_pb2 import StreamRunResponse
from polos_service.config import Settings
from polos_service.server import open_store
from polos_service.store import Frame, NewRun, RunStore

RUNS, LISTED = 100_000, 60
"""Runs of the full store, and of the empty one: enough to fill a page of a list."""

AT_ONCE = 1_000
"""Runs that are written at a time while a store is filled: commits are shared."""

MONTH = 30 * 24 * 3600 * 10**9
OPERATIONS = ("start", "attach", "list")
IMPORTS = {
    "polos": "from polos import PolosClient",
    "bare": "import grpc.aio",
}


def stored(upstream: Server, rounds: int) -> Row:
    """Start, attach and list beside a hundred thousand finished runs, and on an empty store."""
    changes: dict[str, list[float]] = {name: [] for name in OPERATIONS}
    starts: Samples = {"polos": []}
    with tempfile.TemporaryDirectory(prefix="bench-", dir=ROOT / "bench") as folder:
        full, empty = Path(folder, "full.db"), Path(folder, "empty.db")
        finished, other = asyncio.run(fill(full, RUNS)), asyncio.run(fill(empty, LISTED))
        for _ in range(rounds):
            beside = timed(upstream, full, finished)
            alone = timed(upstream, empty, other)
            starts["polos"].append(beside["start_ms"])
            for name in OPERATIONS:
                key = f"{name}_ms"
                changes[name].append(100 * (beside[key] / alone[key] - 1))
    return Row(
        name="stored",
        title=f"{RUNS:,} stored runs: more than on an empty store",
        unit="ms",
        figures=starts,
        goals=[
            Goal(text=name, figure=median(changes[name]), bound=20, most=True, unit="%")
            for name in OPERATIONS
        ],
    )


def timed(upstream: Server, store: Path, finished: str) -> dict[str, float]:
    """Return the median milliseconds of each operation on a store."""
    with server(*serving(f"sqlite://{store}"), **settings(upstream)) as service:
        return load("stored", address=service.address, runs=150, finished=finished)


async def fill(path: Path, runs: int) -> str:
    """Make a store of finished runs of three frames, spread over a month; return one's id."""
    settings = Settings(store=f"sqlite://{path}", max_queued=runs, synchronous="NORMAL")
    store = await open_store(settings)
    try:
        first = time.time_ns() - MONTH
        created = [first + index * (MONTH // runs) for index in range(runs)]
        for begin in range(0, runs, AT_ONCE):
            some = range(begin, min(begin + AT_ONCE, runs))
            await asyncio.gather(*(insert(store, created[index], index) for index in some))
    finally:
        await store.close()
    return run_id(created[runs // 2], runs // 2)


def run_id(created: int, index: int) -> str:
    """Return an id that sorts by time, as the service's do."""
    stamp = f"{created // 10**6:012x}"
    return f"{stamp[:8]}-{stamp[8:]}-7000-8000-{index:012x}"


async def insert(store: RunStore, created: int, index: int) -> None:
    """Store a run, and write it to its end."""
    run = NewRun(
        project="default",
        run_id=run_id(created, index),
        workflow_id="relay",
        request_id=f"request-{index}",
        digest=b"d" * 32,
        definition=b"{}" + b" " * 400,
        session_id=f"session-{index % 1000}",
        user_id=None,
        streaming=True,
        create_time=created,
        deadline=None,
    )
    await store.create(run)
    claim = await store.claim_run(run.project, run.run_id)
    assert claim is not None
    text = TextDelta(content="A sentence of the answer. " * 8, step_key="llm:1", step=1, attempt=1)
    end = Event(agent_finish=AgentFinish(result="done"), terminal=True)
    events = [Event(text_delta=text), Event(text_delta=text), end]
    for sequence, event in enumerate(events, start=1):
        event.run_id, event.workflow_id, event.sequence = run.run_id, run.workflow_id, sequence
        event.create_time.FromNanoseconds(created)
        data = StreamRunResponse(events=[event]).SerializeToString()
        outcome = RunState.RUN_STATE_COMPLETED if event.terminal else None
        frame = Frame(first=sequence, last=sequence, data=data, outcome=outcome)
        await store.append(claim, frame)


def imports(_upstream: Server, rounds: int) -> Row:
    """Import the client, beside grpc alone."""
    samples: Samples = {name: [] for name in IMPORTS}
    for _ in range(5 * rounds):
        for name, statement in IMPORTS.items():
            samples[name].append(seconds_of(statement) * 1000)
    times = median(samples["polos"]) / median(samples["bare"])
    return Row(
        name="import",
        title='python -c "from polos import PolosClient", by "import grpc.aio"',
        unit="ms",
        figures=samples,
        goals=[Goal(text="whole process", figure=times, bound=2, most=True)],
    )


def seconds_of(statement: str) -> float:
    """Return how long a Python process takes that does nothing else."""
    begun = time.perf_counter()
    subprocess.run([sys.executable, "-c", statement], check=True, env=environment(), cwd=os.sep)  # noqa: S603
    return time.perf_counter() - begun
