"""Readers that take nothing, or little: the service's memory stays flat, nobody else waits."""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import grpc.aio

from polos import Agent, PolosClient, events
from polos.v1 import run_service_pb2 as pb
from tests.support.process import PATIENCE, ServiceProcess

APP = """
from polos import Agent, tool
from polos_client.define.scripted import call, pause, say, script, turn


@tool
async def fill() -> str:
    "Return much."
    return "x" * 400_000


large = Agent("large", "scripted", script(turn(*(call("fill") for _ in range(80))), "done"),
              tools=[fill])
paced = Agent("paced", "scripted", script(turn(*(
    part for index in range(150) for part in (say([f"word{index} "]), pause(0.004))
))))
"""

LARGE = Agent(id="large", provider="scripted", model="-")
PACED = Agent(id="paced", provider="scripted", model="-")

LOG = 32_000_000
"""Bytes of the large run's log, at least."""

STALLED = 8
"""Readers that never read. What they would take in all is eight times the log."""

FLAT = 64_000_000
"""Bytes that the service may grow by: for each of these readers a few responses of 1.5 MiB.
Whoever queued the log for each of them would need more than 280 million."""


@asynccontextmanager
async def serving(folder: Path) -> AsyncIterator[tuple[ServiceProcess, PolosClient]]:
    app = folder / "app.py"
    app.write_text(APP)
    async with (
        ServiceProcess(app, folder / "runs.db") as service,
        PolosClient(service.address) as client,
    ):
        yield service, client


@asynccontextmanager
async def readers_that_lag(address: str, run_id: str) -> AsyncIterator[None]:
    """Let some readers take nothing of a run, and one take a response now and then."""
    path = "/polos.v1.RunService/StreamWorkflow"
    request = pb.StreamWorkflowRequest(workflow_run_id=run_id).SerializeToString()

    async def slowly(channel: grpc.aio.Channel) -> None:
        while True:
            read: Any = channel.unary_stream(path)
            async for _ in read(request):
                await asyncio.sleep(0.1)

    async with AsyncExitStack() as stack:
        calls: list[Any] = []
        for number in range(STALLED + 1):
            # Connections of their own: those of one connection share its window.
            own = (("grpc.use_local_subchannel_pool", 1), ("chaos.reader", number))
            channel = await stack.enter_async_context(grpc.aio.insecure_channel(address, own))
            if number == STALLED:
                break
            read: Any = channel.unary_stream(path)
            calls.append(read(request))
            await calls[-1].initial_metadata()
        slow = asyncio.create_task(slowly(channel))
        try:
            yield
            assert not any(call.done() for call in calls), "a reader that lags was given up"
            assert not slow.done(), "a slow reader was given up"
        finally:
            slow.cancel()
            await asyncio.wait({slow})


def memory(service: ServiceProcess) -> int:
    """Return the bytes of memory that the service's process holds."""
    assert service._process is not None
    status = Path(f"/proc/{service._process.pid}/status").read_text()
    line = next(line for line in status.splitlines() if line.startswith("VmRSS"))
    return int(line.split()[1]) * 1024


async def delays(client: PolosClient) -> list[float]:
    """Read a paced run as it goes; return how long each token took to its reader, in seconds."""
    stream = await PACED.stream(client, "Go")
    taken = []
    numbers = []
    async for event in stream.events:
        numbers.append(event.sequence_id)
        if event.event_type == "text_delta":
            taken.append(time.time() - event.created_at.timestamp())
    assert numbers == list(range(1, len(numbers) + 1))
    assert len(taken) == 150
    return taken


async def read_whole(client: PolosClient, run_id: str) -> int:
    """Read a run from its start to its end; return how many bytes its events have."""
    log = events.stream_workflow(client, workflow_run_id=run_id)
    return sum([event.proto.ByteSize() async for event in log])


async def test_readers_that_lag_cost_no_memory_and_delay_nobody(tmp_path: Path) -> None:
    async with serving(tmp_path) as (service, client), asyncio.timeout(3 * PATIENCE):
        run_id = (await LARGE.invoke(client, {"input": "Go"})).id
        whole = await read_whole(client, run_id)
        assert whole > LOG
        alone = [await delays(client) for _ in range(2)]
        before = memory(service)
        async with readers_that_lag(service.address, run_id):
            beside = [await delays(client) for _ in range(2)]
            assert await read_whole(client, run_id) == whole
            grown = memory(service) - before
    assert grown < FLAT, f"the service grew by {grown / 1e6:.0f} MB"
    usual, now = (min(map(statistics.median, runs)) for runs in (alone, beside))
    assert now < usual + 0.02, f"tokens took {usual:.4f} s, and beside the others {now:.4f} s"
