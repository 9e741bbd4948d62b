"""What a step costs in a workflow of many, and how long its recovery takes."""

from __future__ import annotations

import asyncio
import json
import tempfile
import time
from pathlib import Path
from statistics import median

import grpc.aio

from bench.processes import ROOT, Server, server
from bench.product import serving, settings
from bench.table import Goal, Row
from bench.waiting import STEPS, many
from polos.v1.run_pb2 import Run, RunState
from polos.v1.run_service_pb2 import (
    CreateRunRequest,
    GetRunRequest,
    ListRunsRequest,
    ListWaitsRequest,
    ResumeRunRequest,
)
from polos.v1.run_service_pb2_grpc import RunServiceStub

PAUSE = 0.05
"""Seconds between two looks at the run, by calls that do not read its log."""


def steps(upstream: Server, rounds: int) -> Row:
    """Run a workflow of many steps, kill the service, and let the next one go on."""
    found = [once(upstream) for _ in range(rounds)]
    return Row(
        name="steps",
        title=f"a workflow of {STEPS:,} steps: seconds of its recovery after a kill",
        unit="s",
        figures={"polos": [recovery for *_, recovery, _ in found]},
        goals=[
            Goal(
                text="CPU of the last 1,000 steps, by the first",
                figure=median(last / first for first, last, *_ in found),
                bound=1.2,
                most=True,
            ),
            Goal(
                text="recovery",
                figure=median(recovery for *_, recovery, _ in found),
                bound=2,
                most=True,
                unit="s",
                why="Others used the machine meanwhile: the CPU time of the recovery is below it.",
            ),
        ],
        notes={
            "CPU of a step in ms": median(last for _, last, *_ in found),
            "CPU of the recovery in s": median(cpu for *_, cpu in found),
        },
    )


def once(upstream: Server) -> tuple[float, float, float, float]:
    """Return what a step and the recovery took.

    That is the CPU of a step in ms at the beginning, and at the end; and the seconds of the
    recovery, and those of them in which the service had a CPU.
    """
    with tempfile.TemporaryDirectory(prefix="bench-", dir=ROOT / "bench") as folder:
        command = serving(f"sqlite://{Path(folder, 'runs.db')}", "waiting.py")
        with server(*command, **settings(upstream)) as service:
            run = asyncio.run(taken(service.address))
        told = json.loads(run.open_waits[0].data_json)
        with server(*command, **settings(upstream)) as service:
            before = service.cpu
            recovery = asyncio.run(recovered(service.address, run))
            cpu = service.cpu - before
    return told["first"], told["last"], recovery, cpu


async def taken(address: str) -> Run:
    """Return a run that has taken all its steps, and waits."""
    async with grpc.aio.insecure_channel(address) as channel:
        runs = RunServiceStub(channel)
        await runs.CreateRun(CreateRunRequest(agent_id=many.id))
        while True:
            waits = (await runs.ListWaits(ListWaitsRequest())).waits
            if waits:
                return (await runs.GetRun(GetRunRequest(run_id=waits[0].run_id))).run
            await asyncio.sleep(PAUSE)


async def recovered(address: str, run: Run) -> float:
    """Return after how many seconds a service that was just started has ended the run."""
    async with grpc.aio.insecure_channel(address) as channel:
        runs = RunServiceStub(channel)
        begun = time.perf_counter()
        await runs.ResumeRun(ResumeRunRequest(run_id=run.run_id, step_key="end", data_json="null"))
        while True:
            (found,) = (await runs.ListRuns(ListRunsRequest())).runs
            if found.state == RunState.RUN_STATE_COMPLETED:
                return time.perf_counter() - begun
            await asyncio.sleep(PAUSE)
