"""What children cost: a workflow that runs agents beside each other, and whoever reads it."""

from __future__ import annotations

import asyncio
import json
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

import grpc.aio

from bench.app import relay
from bench.processes import ROOT, Server, server
from bench.product import serving, settings
from bench.prompt import Prompt
from bench.spreading import TOKENS, spreads
from bench.table import Goal, Row
from polos.v1.event_pb2 import Event
from polos.v1.run_service_pb2 import CreateRunRequest, StreamWorkflowRequest
from polos.v1.run_service_pb2_grpc import RunServiceStub

FEW, MANY = 100, 1_000
"""Children of a root run."""

RATE = 1
"""Tokens a second of each child where the lag of a reader is measured: the service is not busy
all the time then."""

WARM_UP = 10
"""Children of the first root run, which is not measured."""

STREAMS = 100
"""Streams of children that are measured, and of a plain run."""

TURNS = 5
"""In how many turns they are read, children and a plain run alternately."""

STARTS = ("workflow_start", "agent_start")
"""The events that a run begins with."""

MS = 1_000


@dataclass(frozen=True, slots=True)
class Spread:
    """What a root run with children took.

    Attributes:
        seconds: from its start to its end, as its reader saw it.
        cpu: seconds of CPU of the service.
        memory: bytes that the service holds more than before.
        lags: milliseconds from when an event was made to when the reader had it, sorted.
        child: seconds of CPU of the service and of the reader, in this order, for a stream of one
            child that has ended.
        plain: the same for a run of its size that nobody's code has started.

    """

    seconds: float
    cpu: float
    memory: int
    lags: list[float]
    child: tuple[float, float]
    plain: tuple[float, float]

    @property
    def ratio(self) -> float:
        """What a stream of one child costs service and reader, by one of a plain run."""
        return sum(self.child) / sum(self.plain)


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
                text="CPU of a stream of one child, by one of a plain run of its size",
                figure=median(one.ratio for one in many),
                bound=3,
                most=True,
            ),
            Goal(
                text=f"the same, of children at {RATE} tokens/s, whose events lie far apart",
                figure=median(one.ratio for one in paced),
                bound=3,
                most=True,
            ),
            Goal(
                text=f"lag of the root's reader at {RATE} tokens/s a child, 99th percentile",
                figure=median(one.lags[len(one.lags) * 99 // 100] for one in paced),
                bound=100,
                most=True,
                unit="ms",
                why="All children begin in the same second, and end in the same second. One thread "
                "is busy with them for that time; in between, an event is with the reader at once.",
            ),
        ],
        notes={
            f"ms a child of {FEW}": median(MS * one.seconds / FEW for one in few),
            "CPU ms a child": median(MS * one.cpu / MANY for one in many),
            "KB a child": median(one.memory / MANY / 1000 for one in many),
            **{
                f"CPU ms of the {who} for a stream of {what}": MS * median(figures)
                for what, streams in (
                    ("one child", [one.child for one in many]),
                    (f"one child at {RATE} tokens/s", [one.child for one in paced]),
                    ("a plain run", [one.plain for one in many]),
                )
                for who, figures in zip(
                    ("service", "reader"), zip(*streams, strict=True), strict=True
                )
            },
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
            asyncio.run(followed(service.address, spread_of(WARM_UP, 0)))
            cpu, memory = service.cpu, service.memory
            begun = time.perf_counter()
            seen = asyncio.run(followed(service.address, spread_of(count, rate)))
            seconds = time.perf_counter() - begun
            cpu, memory = service.cpu - cpu, service.memory - memory
            plain = asyncio.run(followed(service.address, alone(rate)))
            some = seen.children[:: count // STREAMS], plain.runs * STREAMS
            streams = asyncio.run(read_again(service, *some))
            return Spread(seconds, cpu, memory, sorted(seen.lags), *streams)


@dataclass(slots=True)
class Seen:
    """What a reader has seen of a root run.

    Attributes:
        lags: milliseconds from when each event was made to when the reader had it.
        runs: the ids of the runs in its log, the root's first.

    """

    lags: list[float] = field(default_factory=list)
    runs: list[str] = field(default_factory=list)

    @property
    def children(self) -> list[str]:
        """The ids of the children."""
        return self.runs[1:]


def spread_of(count: int, rate: int) -> CreateRunRequest:
    """Return the start of a root run with so many children."""
    payload = json.dumps({"count": count, "rate": rate})
    return CreateRunRequest(agent_id=spreads.id, payload_json=payload)


def alone(rate: int) -> CreateRunRequest:
    """Return the start of a run of the agent that a child runs."""
    prompt = str(Prompt(TOKENS, rate))
    return CreateRunRequest(agent_id=relay.id, input=prompt, streaming=True)


async def followed(address: str, start: CreateRunRequest) -> Seen:
    """Start a root run, and read it to its end."""
    seen = Seen()
    async with grpc.aio.insecure_channel(address) as channel:
        runs = RunServiceStub(channel)
        run_id = (await runs.CreateRun(start)).run.run_id
        stream = runs.StreamWorkflow(StreamWorkflowRequest(workflow_run_id=run_id))
        end = Event()
        async for response in stream:
            now = time.time_ns()
            for end in response.events:
                seen.lags.append((now - end.create_time.ToNanoseconds()) / 1e6)
                if end.WhichOneof("payload") in STARTS:
                    seen.runs.append(end.run_id)
    if not end.terminal or end.HasField("error"):
        raise RuntimeError(f"the run did not end well: {end}")
    return seen


async def read_again(
    service: Server, children: Sequence[str], plain: Sequence[str]
) -> list[tuple[float, float]]:
    """Read children and plain runs that have ended, some of both in turn, one after the other.

    Returns:
        For the children, and for the plain runs, seconds of CPU for one of them: those of the
        service, and those of the reader.

    """
    async with grpc.aio.insecure_channel(service.address) as channel:
        runs = RunServiceStub(channel)

        async def read(run_ids: Sequence[str]) -> tuple[float, float]:
            before = service.cpu, time.process_time()
            for run_id in run_ids:
                stream = runs.StreamWorkflow(StreamWorkflowRequest(workflow_run_id=run_id))
                async for _ in stream:
                    pass
            return service.cpu - before[0], time.process_time() - before[1]

        turns = [
            [await read(run_ids[turn::TURNS]) for run_ids in (children, plain)]
            for turn in range(TURNS)
        ]
    return [
        (sum(one[0] for one in read) / STREAMS, sum(one[1] for one in read) / STREAMS)
        for read in zip(*turns, strict=True)
    ]
