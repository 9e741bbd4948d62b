"""Costs that are there before anything runs: a full store, and an import."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

from bench.processes import ROOT, Server, environment, load, server
from bench.product import serving, settings
from bench.table import Goal, Row, Samples
from polos.v1.event_pb2 import AgentFinish, TextDelta
from polos.v1.run_pb2 import RunState
from polos_service.runs.frame import Encoder
from polos_service.store import Frame, NewRun
from polos_service.store.sqlite import statements as sql
from polos_service.store.sqlite.schema import connect, prepare

RUNS = 100_000
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
        finished = fill(full, RUNS)
        fill(empty, 60)  # a page to list
        for _ in range(rounds):
            beside = timed(upstream, full, finished)
            alone = timed(upstream, empty, finished_of(empty))
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


def fill(path: Path, runs: int) -> str:
    """Make a store of finished runs of three frames, as the service writes them; return one."""
    prepare(path)
    db = connect(path)
    db.execute("BEGIN")
    now = time.time_ns() - MONTH
    for index in range(runs):
        insert(db, now + index * (MONTH // runs), index)
    db.execute("COMMIT")
    db.close()
    return run_id(now + (runs // 2) * (MONTH // runs), runs // 2)


def finished_of(path: Path) -> str:
    """Return the first run in a store."""
    db = sqlite3.connect(path)
    try:
        return str(db.execute("SELECT run_id FROM runs ORDER BY id LIMIT 1").fetchone()[0])
    finally:
        db.close()


def run_id(created: int, index: int) -> str:
    """Return an id that sorts by time, as the service's do."""
    stamp = f"{created // 10**6:012x}"
    return f"{stamp[:8]}-{stamp[8:]}-7000-8000-{index:012x}"


def insert(db: sqlite3.Connection, created: int, index: int) -> None:
    """Insert a finished run."""
    name = run_id(created, index)
    run = NewRun(
        project="default",
        run_id=name,
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
    sql.insert_run(db, run, 1)  # none is queued for longer than it takes to claim it
    claim = sql.begin_claim(db, sql.find_run(db, "default", name), "bench")
    assert claim is not None
    text = TextDelta(content="A sentence of the answer. " * 8, step_key="llm:1", step=1, attempt=1)
    for sequence, payload in enumerate([text, text, AgentFinish(result="done")], start=1):
        terminal = isinstance(payload, AgentFinish)
        data = Encoder(name, "relay").encode(
            payload,
            sequence=sequence,
            time=created,
            terminal=terminal,
        )
        outcome = RunState.RUN_STATE_COMPLETED if terminal else None
        frame = Frame(first=sequence, last=sequence, data=data, outcome=outcome)
        sql.insert_frame(db, claim, frame, b"")


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
