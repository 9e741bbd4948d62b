"""`python -m bench.attacks`: what one hostile connection or provider costs everybody else."""

from __future__ import annotations

import asyncio
import contextlib
import json
import tempfile
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import grpc
import typer
from rich.console import Console
from rich.table import Table

from bench.hostile_upstream import TOKENS
from bench.processes import ROOT, Server, server
from bench.product import serving, settings
from bench.prompt import Prompt
from bench.targets import provider
from fuzz.bystander import Bystander
from fuzz.vitals import Vitals
from polos.v1 import run_service_pb2 as pb
from polos.v1.run_service_pb2_grpc import RunServiceStub

READERS, READ_EVENTS = 1000, 100_000
MESSAGES = 60_000
GETS = 20

HELD = 10.0
"""Seconds for which an attack that has no end goes on."""

TIMEOUT = 300.0
"""Seconds after which a call of an attack has failed."""

SETTLE = 3.0
"""Seconds after an attack in which the service may let go of what it held."""

SAMPLE = 0.02
"""Seconds between two looks at the service's memory."""

GROWTH, SECOND, DELAY = 300, 50, 250
"""The goals: MB more at the peak, MB more at the second attack's peak, a bystander's ms."""

MB = 1_000_000


@dataclass(frozen=True, slots=True)
class Attack:
    """An attack.

    Attributes:
        made: the agent of the run that is made beforehand; None: no such run.
        strike: attacks once; it is given the address and the run's id.

    """

    title: str
    strike: Callable[[str, str], Awaitable[None]]
    made: str | None = None


@dataclass(frozen=True, slots=True)
class Cost:
    """What an attack cost: bytes of memory, and seconds of a bystander."""

    before: int
    peak: int
    after: int
    second_peak: int
    idle: float
    slowest: float
    failed: list[str]


@asynccontextmanager
async def calling(address: str) -> AsyncIterator[Any]:
    """Open one hostile connection, and yield the calls on it."""
    options = (("grpc.use_local_subchannel_pool", 1),)
    async with grpc.aio.insecure_channel(address, options=options) as channel:
        yield RunServiceStub(channel)


async def many_readers(address: str, run_id: str) -> None:
    """Open streams of a long run, and read none of them."""
    async with calling(address) as runs:
        request = pb.StreamWorkflowRequest(workflow_run_id=run_id)
        calls = [runs.StreamWorkflow(request) for _ in range(READERS)]
        await asyncio.gather(*(call.initial_metadata() for call in calls), return_exceptions=True)
        await asyncio.sleep(HELD)
        for call in calls:
            call.cancel()


async def many_messages(address: str, _: str) -> None:
    """Start a run with as many messages as go into a request."""
    said = [{"role": "user", "content": str(Prompt(1))}, *[{"role": "user"}] * (MESSAGES - 1)]
    text = json.dumps(said, separators=(",", ":"))
    request = pb.StreamRunRequest(agent_id="relay", input_messages_json=text)
    async with calling(address) as runs:
        await drained(runs.StreamRun(request))


async def many_gets(address: str, run_id: str) -> None:
    """Ask for the outcome of a long run many times at once."""
    async with calling(address) as runs:
        gets = [runs.GetRun(pb.GetRunRequest(run_id=run_id), timeout=TIMEOUT) for _ in range(GETS)]

        async def got(call: Any) -> None:
            with contextlib.suppress(grpc.aio.AioRpcError):
                await call

        await asyncio.gather(*map(got, gets))


async def huge_error(address: str, _: str) -> None:
    """Run an agent whose provider refuses with a gigabyte."""
    async with calling(address) as runs:
        await drained(runs.StreamRun(pb.StreamRunRequest(agent_id="huge_error", input="Go.")))


async def endless_fragments(address: str, _: str) -> None:
    """Run an agent whose provider adds nothing to a tool call, for ever; cancel it in the end."""
    async with calling(address) as runs:
        call = runs.StreamRun(pb.StreamRunRequest(agent_id="endless_fragments", input="Go."))
        run_id = str(dict(await call.initial_metadata())["polos-run-id"])
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(HELD):
                await drained(call)
        await runs.CancelRun(pb.CancelRunRequest(run_id=run_id), timeout=TIMEOUT)


async def drained(call: Any) -> None:
    """Read a stream to its end, whatever that is."""
    with contextlib.suppress(grpc.aio.AioRpcError):
        async for _ in call:
            pass


ATTACKS = {
    "readers": Attack(
        f"{READERS:,} readers that never read {READ_EVENTS:,} events", many_readers, "relay"
    ),
    "messages": Attack(f"{MESSAGES:,} messages in a start", many_messages),
    "gets": Attack(f"{GETS} GetRun of {TOKENS:,} events", many_gets, "short_tokens"),
    "error": Attack("a provider's error of 1 GB", huge_error),
    "fragments": Attack("a provider's endless empty fragments", endless_fragments),
}


@contextmanager
def attacked(upstream: Server, hostile: Server) -> Iterator[Server]:
    """Start a service on an empty store."""
    with tempfile.TemporaryDirectory(prefix="bench-", dir=ROOT / "bench") as folder:
        command = serving(f"sqlite://{Path(folder) / 'runs.db'}", "attacked.py")
        variables = settings(upstream) | {"BENCH_HOSTILE": f"http://{hostile.address}/v1"}
        with server(*command, **variables) as started:
            yield started


@contextmanager
def watched(pid: int) -> Iterator[list[int]]:
    """Sample a process's memory in a thread of its own for as long as the block."""
    samples = [Vitals.of(pid).memory]
    done = threading.Event()

    def watch() -> None:
        while not done.wait(SAMPLE):
            samples.append(Vitals.of(pid).memory)

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield samples
    finally:
        done.set()
        thread.join()


async def cost(attack: Attack, service: Server) -> Cost:
    """Attack twice, and measure."""
    run_id = await made(service.address, attack.made) if attack.made else ""
    async with Bystander(service.address) as idle:
        await asyncio.sleep(SETTLE)
    peaks, left = [], [Vitals.of(service.pid).memory]
    async with Bystander(service.address) as beside:
        for _ in range(2):
            with watched(service.pid) as samples:
                await attack.strike(service.address, run_id)
            await asyncio.sleep(SETTLE)
            peaks.append(max(samples))
            left.append(Vitals.of(service.pid).memory)
    return Cost(
        before=left[0],
        peak=peaks[0],
        after=left[1],
        second_peak=peaks[1],
        idle=idle.slowest,
        slowest=beside.slowest,
        failed=beside.failed,
    )


async def made(address: str, agent: str) -> str:
    """Make a run with many events, and return its id."""
    async with calling(address) as runs:
        request = pb.StreamRunRequest(agent_id=agent, input=str(Prompt(READ_EVENTS)))
        call = runs.StreamRun(request)
        run_id = str(dict(await call.initial_metadata())["polos-run-id"])
        async for response in call:
            latest = response.latest_sequence
        assert latest > READ_EVENTS, f"the run of {agent} has {latest} events"
    return run_id


def main(
    only: Annotated[str, typer.Option(help="Attacks to make, by name, with commas.")] = "",
) -> None:
    """Attack a service in each way, and print what it cost."""
    console = Console(width=150)
    table = Table(
        *("attack", "before, MB", "peak, MB", "after, MB", "growth, MB", "second, MB more"),
        *("bystander idle, ms", "slowest, ms", "failed", "goals"),
        title=f"goals: growth < {GROWTH} MB, second < {SECOND} MB more, slowest < {DELAY} ms",
    )
    for name in only.split(",") if only else ATTACKS:
        begun = time.monotonic()
        with (
            provider() as upstream,
            server("bench.hostile_upstream") as hostile,
            attacked(upstream, hostile) as service,
        ):
            found = asyncio.run(cost(ATTACKS[name], service))
        table.add_row(ATTACKS[name].title, *figures(found))
        console.print(f"{name}: {time.monotonic() - begun:.0f} s", style="dim")
        for status in found.failed:
            console.print(f"a bystander's call failed: {status}", style="red")
    console.print(table)


def figures(found: Cost) -> list[str]:
    """Return a row's figures, and whether the goals are met."""
    growth = (found.peak - found.before) / MB
    second = (found.second_peak - found.peak) / MB
    slowest = found.slowest * 1000
    met = growth < GROWTH and second < SECOND and slowest < DELAY and not found.failed
    sizes = [found.before / MB, found.peak / MB, found.after / MB, growth, second]
    times = [found.idle * 1000, slowest]
    return [
        *(f"{size:,.0f}" for size in [*sizes, *times]),
        str(len(found.failed)),
        "met" if met else "MISSED",
    ]


if __name__ == "__main__":
    typer.run(main)
