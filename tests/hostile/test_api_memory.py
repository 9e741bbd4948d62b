"""Readers that do not read, by the hundred on one connection: each holds 256 KiB at most."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import grpc.aio
import pytest

from polos.v1 import run_service_pb2 as pb
from polos_service.store.sqlite.damage import IMAGE_LIMIT
from tests.hostile.logs import RUN, write_log
from tests.support.process import ServiceProcess

APP = """
from polos import Agent
from polos_client.define.scripted import pause, script, turn

demo = Agent("demo", "scripted", script("fine"))
waiting = Agent("waiting", "scripted", script(turn(pause())))
"""

WAITING = "waiting"
"""An agent whose runs never end."""

INPUT = 1_000_000
"""Bytes of a large input."""

STARTS = 30

READERS = 200

A_READER = 256 * 1024
"""Bytes that a reader may cost, grpc's buffers included."""

DELTAS = 100_000
"""Events of the log: 5 MB, so that whoever queues it for each reader is found out."""

STILL = 8
"""Looks, a tenth of a second apart, without growth."""

NARROW = (("grpc.http2.bdp_probe", 0), ("grpc.http2.lookahead_bytes", 65_536))
"""Options of a client that takes little ahead of its reader."""


@pytest.mark.parametrize("taken", [0, 1_000_000])
async def test_readers_that_stop_reading_hold_little(tmp_path: Path, taken: int) -> None:
    await write_log(tmp_path, DELTAS)
    app = tmp_path / "app.py"
    app.write_text(APP)
    async with (
        ServiceProcess(app, tmp_path / "runs.db") as service,
        grpc.aio.insecure_channel(service.address, NARROW) as channel,
    ):
        first = await stalled(channel, taken)  # what the first one needs is not its own
        before = memory(service)
        calls = [await stalled(channel, taken) for _ in range(READERS)]
        grown = await settled(service) - before
        assert not any(call.done() for call in (first, *calls))
        for call in calls:
            call.cancel()
    assert grown < READERS * A_READER, f"a reader holds {grown / READERS / 1024:.0f} KiB"


async def test_a_stream_does_not_keep_the_request_that_started_its_run(tmp_path: Path) -> None:
    app, store = tmp_path / "app.py", tmp_path / "runs.db"
    app.write_text(APP)
    async with (
        ServiceProcess(app, store, POLOS_MAX_RUNS="1") as service,
        grpc.aio.insecure_channel(service.address) as channel,
    ):
        calls = [await started(channel, WAITING, 1)]  # the others wait for it
        while store.stat().st_size <= IMAGE_LIMIT:  # a health check reads a smaller file whole
            calls.append(await started(channel, WAITING, INPUT))
        before = await settled(service)
        calls += [await started(channel, WAITING, INPUT) for _ in range(STARTS)]
        grown = await settled(service) - before
        for call in calls:
            call.cancel()
    assert grown < STARTS * A_READER, f"a stream holds {grown / STARTS / 1024:.0f} KiB"


async def started(channel: grpc.aio.Channel, agent_id: str, size: int) -> Any:
    """Start a run with so large an input, and stream it."""
    stream: Any = channel.unary_stream("/polos.v1.RunService/StreamRun")
    request = pb.StreamRunRequest(agent_id=agent_id, input="x" * size)
    call = stream(request.SerializeToString())
    await call.read()
    return call


async def stalled(channel: grpc.aio.Channel, taken: int) -> Any:
    """Open a reader that takes so many bytes and then no more."""
    read: Any = channel.unary_stream("/polos.v1.RunService/StreamWorkflow")
    call = read(pb.StreamWorkflowRequest(workflow_run_id=RUN).SerializeToString())
    await call.initial_metadata()
    while taken > 0:
        taken -= len(await call.read())
    return call


async def settled(service: ServiceProcess) -> int:
    """Return the bytes that the service holds, once they have not grown for a while."""
    most, still = 0, 0
    while still < STILL:
        await asyncio.sleep(0.1)
        now = memory(service)
        still = 0 if now > most else still + 1
        most = max(most, now)
    return most


def memory(service: ServiceProcess) -> int:
    """Return the bytes of memory that the service's process holds."""
    assert service._process is not None
    status = Path(f"/proc/{service._process.pid}/status").read_text()
    line = next(line for line in status.splitlines() if line.startswith("VmRSS"))
    return int(line.split()[1]) * 1024
