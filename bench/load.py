"""The load on a server, in a process of its own: `python -m bench.load SCENARIO JSON`.

It prints what it measured as JSON. Scenarios of any server are here, those that only the
product can be asked for in `bench.load_polos`.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Awaitable, Callable
from statistics import quantiles
from typing import Any

import uvloop

from bench.prompt import Prompt
from bench.readers import READERS, Reader

Measured = dict[str, Any]

WARM_UP = 1.5
"""Seconds over which paced answers are started, and settle, before they are measured."""


async def relay(name: str, address: str, runs: int, tokens: int, times: int = 1) -> Measured:
    """Read answers as fast as they come, so many at once, so many times in a row."""
    reader = READERS[name](address)
    await count(reader, 1)  # the connections are made, the code is warm
    begun = time.perf_counter()
    for _ in range(times):
        counts = await asyncio.gather(*(count(reader, tokens) for _ in range(runs)))
        assert counts == [tokens] * runs, f"{name} lost tokens: {counts}"
    passed = times * runs * tokens
    seconds = time.perf_counter() - begun
    return {"tokens_per_second": passed / seconds, "passed": passed}


async def count(reader: Reader, tokens: int) -> int:
    """Read an answer and count its texts."""
    counted = 0
    async for _ in reader.texts(str(Prompt(tokens))):
        counted += 1
    return counted


async def growth(name: str, address: str, tokens: int, window: int) -> Measured:
    """Read one long answer; return the rate over its first and its last tokens."""
    reader = READERS[name](address)
    await count(reader, 1)
    marks = [0.0] * (tokens + 1)
    at = 0
    async for _ in reader.texts(str(Prompt(tokens))):
        at += 1
        marks[at] = time.perf_counter()
    assert at == tokens, f"{name} lost tokens: {at} of {tokens}"
    skipped = tokens // 100  # until the connections of the answer have found their pace
    return {
        "first": window / (marks[skipped + window] - marks[skipped]),
        "last": window / (marks[tokens] - marks[tokens - window]),
    }


async def paced(name: str, address: str, runs: int, rate: int, seconds: float) -> Measured:
    """Read paced answers; return percentiles of the time from provider to client."""
    reader = READERS[name](address)
    tokens = int(rate * (seconds + 2 * WARM_UP))
    prompt = str(Prompt(tokens, rate))
    first = time.time_ns() + int(WARM_UP * 1.2e9)
    last = first + int(seconds * 1e9)
    delays: list[int] = []

    async def read(wait: float) -> int:
        await asyncio.sleep(wait)
        passed = 0
        async for text in reader.texts(prompt):
            passed += 1
            sent = int(text)
            if first <= sent < last:
                delays.append(time.time_ns() - sent)
        return passed

    reads = [asyncio.create_task(read(WARM_UP * index / runs)) for index in range(runs)]
    done, late = await asyncio.wait(reads, timeout=seconds + 6 * WARM_UP)
    for one in late:
        one.cancel()
    await asyncio.gather(*late, return_exceptions=True)
    return {
        **percentiles(delays),
        "read": len(delays) / (runs * rate * seconds),
        "passed": sum(one.result() for one in done),
        "late": len(late),
    }


def percentiles(nanoseconds: list[int]) -> Measured:
    """Return median and 99th percentile in milliseconds."""
    if len(nanoseconds) < 2:  # fewer have no percentiles
        return {"p50_ms": float("inf"), "p99_ms": float("inf")}
    cuts = quantiles(nanoseconds, n=100)
    return {"p50_ms": cuts[49] / 1e6, "p99_ms": cuts[98] / 1e6}


def main() -> None:
    """Run the scenario that the arguments name."""
    from bench import load_polos  # noqa: PLC0415 - it builds on this module

    scenario, arguments = sys.argv[1], json.loads(sys.argv[2])
    run: Callable[..., Awaitable[Measured]] = globals().get(scenario) or getattr(
        load_polos, scenario
    )
    print(json.dumps(uvloop.run(run(**arguments))))  # type: ignore[arg-type]  # a coroutine


if __name__ == "__main__":
    main()
