"""Somebody who only wants an answer now and then: how long does it take?

It calls from a process of its own, so that the attack's own work does not count, and by our client:
a call that the service ends without a word because too many wait is made again, and takes longer.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from collections.abc import Awaitable, Callable
from itertools import cycle
from statistics import quantiles
from types import TracebackType
from typing import Self

from polos import PolosClient
from polos_client.errors import PolosError

PAUSE = 0.01
"""Seconds between two calls."""


class Bystander:
    """Calls for as long as the block.

    Attributes:
        taken: the seconds of each call, afterwards.
        failed: the error of each call that failed, afterwards.

    """

    def __init__(self, address: str, api_key: str = "") -> None:
        self.taken: list[float] = []
        self.failed: list[str] = []
        self._address = address
        self._api_key = api_key

    async def __aenter__(self) -> Self:
        self._process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "fuzz.bystander", self._address),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            env=os.environ | {"POLOS_API_KEY": self._api_key},
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
    async with PolosClient(address) as client:

        async def list_runs() -> None:
            async for _ in client.list_runs(limit=1):
                pass

        await client.list_agents()
        print("calls", flush=True)
        calls: list[Callable[[], Awaitable[object]]] = [client.list_agents, list_runs]
        for one in cycle(calls):
            if ended.done():
                break
            begun = time.perf_counter()
            try:
                await one()
            except PolosError as error:
                failed.append(f"{type(error).__name__}: {error}")
            taken.append(time.perf_counter() - begun)
            await asyncio.sleep(PAUSE)
    return taken, failed


if __name__ == "__main__":
    print(json.dumps(asyncio.run(call(sys.argv[1]))))
