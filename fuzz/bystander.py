"""Somebody who only wants an answer now and then: how long does it take?

It calls from a process of its own, so that the attack's own work does not count.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Awaitable, Callable
from itertools import cycle
from statistics import quantiles
from types import TracebackType
from typing import Self

import grpc

from polos.v1.agent_service_pb2 import ListAgentsRequest
from polos.v1.agent_service_pb2_grpc import AgentServiceStub
from polos.v1.run_service_pb2 import ListRunsRequest
from polos.v1.run_service_pb2_grpc import RunServiceStub

PAUSE = 0.01
"""Seconds between two calls."""

CALL_TIMEOUT = 60.0
"""Seconds after which a call has failed."""


class Bystander:
    """Calls for as long as the block.

    Attributes:
        taken: the seconds of each call, afterwards.
        failed: the status of each call that failed, afterwards.

    """

    def __init__(self, address: str) -> None:
        self.taken: list[float] = []
        self.failed: list[str] = []
        self._address = address

    async def __aenter__(self) -> Self:
        self._process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "fuzz.bystander", self._address),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        assert self._process.stdout is not None
        await self._process.stdout.readline()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        output, _ = await self._process.communicate(b"")
        if kind is None:
            self.taken, self.failed = json.loads(output)

    @property
    def slowest(self) -> float:
        """Seconds of the slowest call."""
        return max(self.taken)

    @property
    def p99(self) -> float:
        """Seconds that 99 of 100 calls took at most."""
        return quantiles(self.taken, n=100)[-1]


async def call(address: str) -> tuple[list[float], list[str]]:
    """Call until standard input ends; return the seconds of each call, and what failed."""
    taken: list[float] = []
    failed: list[str] = []
    loop = asyncio.get_running_loop()
    ended = loop.run_in_executor(None, sys.stdin.buffer.read)
    async with grpc.aio.insecure_channel(address) as channel:
        agents, runs = AgentServiceStub(channel), RunServiceStub(channel)
        await agents.ListAgents(ListAgentsRequest(), timeout=CALL_TIMEOUT)
        print("calls", flush=True)
        calls: list[Callable[[], Awaitable[object]]] = [
            lambda: agents.ListAgents(ListAgentsRequest(), timeout=CALL_TIMEOUT),
            lambda: runs.ListRuns(ListRunsRequest(page_size=1), timeout=CALL_TIMEOUT),
        ]
        for one in cycle(calls):
            if ended.done():
                break
            begun = time.perf_counter()
            try:
                await one()
            except grpc.aio.AioRpcError as error:
                failed.append(f"{error.code().name} {error.details()}")
            taken.append(time.perf_counter() - begun)
            await asyncio.sleep(PAUSE)
    return taken, failed


if __name__ == "__main__":
    print(json.dumps(asyncio.run(call(sys.argv[1]))))
