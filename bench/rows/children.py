"""What children cost: a workflow that runs agents beside each other, and whoever reads it."""

from __future__ import annotations

import asyncio
import json
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import grpc.aio

from bench.processes import ROOT, Server, server
from bench.product import serving, settings
from bench.spreading import TOKENS, spreads
from bench.table import Goal, Row
from polos.v1.run_service_pb2 import CreateRunRequest, StreamWorkflowRequest
from polos.v1.run_service_pb2_grpc import RunServiceStub

FEW, MANY = 100, 1_000
"""Children of a root run."""

RATE = 1
"""Tokens a second of each child where the lag of a reader is measured: the service is not busy
all the time then."""

WARM_UP = 10
"""Children of the first root run, which is not measured."""

MS, MB = 1_000, 1_000_000


@dataclass(frozen=True, slots=True)
class Spread:
    """What a root run with children took.

    Attributes:
        seconds: from its start to its end, as its reader saw it.
        cpu: seconds of CPU of the service.
        memory: bytes that the service holds more than before.
        lags: milliseconds from when an event was made to when the reader had it, sorted.

    """

    seconds: float
    cpu: float
    memory: int
    lags: list[float]


def children(upstream: Server, rounds: int) -> Row:
    """Run few children and many, as fast as they can; then many at a rate, and look at the lag."""
    few, many = ([spread(upstream, count, 0) for _ in range(rounds)] for count in (FEW, MANY))
    paced = [spread(upstream, MANY, RATE) for _ in range(rounds)]
    pairs = list(zip(few, many, strict=True))
    return Row(
        name="children",
        title=f"a workflow that runs {MANY:,} agents of {TOKENS} tokens each at once",
        unit="ms a child",
        figures={"polos": [MS * one.seconds / MANY for one in many]},
        goals=[
            Goal(
                text=f"time of a child of {MANY:,}, by one of {FEW}",
                figure=median(b.seconds / a.seconds * FEW / MANY for a, b in pairs),
                bound=1.3,
                most=True,
            ),
            Goal(
                text=f"memory of a child of {MANY:,}, by one of {FEW}",
                figure=median(b.memory / a.memory * FEW / MANY for a, b in pairs),
                bound=1.3,
                most=True,
            ),
            Goal(
                text=f"lag of the root's reader at {RATE} tokens/s a child, 99th percentile",
                figure=median(one.lags[len(one.lags) * 99 // 100] for one in paced),
                bound=100,
                most=True,
                unit="ms",
            ),
        ],
        notes={
            f"ms a child of {FEW}": median(MS * one.seconds / FEW for one in few),
            "CPU ms a child": median(MS * one.cpu / MANY for one in many),
            "KB a child": median(one.memory / MANY / 1000 for one in many),
            "lag of the root's reader in ms, median": median(
                one.lags[len(one.lags) // 2] for one in paced
            ),
        },
    )


def spread(upstream: Server, count: int, rate: int) -> Spread:
    """Return what a root run with so many children took, on a service of its own."""
    with tempfile.TemporaryDirectory(prefix="bench-", dir=ROOT / "bench") as folder:
        command = serving(f"sqlite://{Path(folder, 'runs.db')}", "spreading.py")
        with server(*command, **settings(upstream)) as service:
            asyncio.run(followed(service.address, WARM_UP, 0))
            cpu, memory = service.cpu, service.memory
            begun = time.perf_counter()
            lags = asyncio.run(followed(service.address, count, rate))
            seconds = time.perf_counter() - begun
            return Spread(seconds, service.cpu - cpu, service.memory - memory, sorted(lags))


async def followed(address: str, count: int, rate: int) -> list[float]:
    """Start a root run with so many children, and read it to its end; return the lags in ms."""
    lags = []
    async with grpc.aio.insecure_channel(address) as channel:
        runs = RunServiceStub(channel)
        payload = json.dumps({"count": count, "rate": rate})
        start = CreateRunRequest(agent_id=spreads.id, payload_json=payload)
        run_id = (await runs.CreateRun(start)).run.run_id
        stream = runs.StreamWorkflow(StreamWorkflowRequest(workflow_run_id=run_id))
        async for response in stream:
            now = time.time_ns()
            lags += [(now - one.create_time.ToNanoseconds()) / 1e6 for one in response.events]
            end = response.events[-1] if response.events else None
    if end is None or end.workflow_finish.result_json != str(count):
        raise RuntimeError(f"{count} children did not all end well: {end}")
    return lags
