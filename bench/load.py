"""The load on a server, in a process of its own: `python -m bench.load SCENARIO JSON`.

It prints what it measured as JSON. Scenarios that read answers as they come are here, the others
in `bench.load_polos`.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Awaitable, Callable
from typing import Any

import uvloop

from bench.prompt import Prompt
from bench.readers import PolosReader, Reader

Measured = dict[str, Any]

START_UP = 1.5
"""Seconds over which paced answers are started."""


async def relay(address: str, runs: int, tokens: int, times: int = 1) -> Measured:
    """Read answers as fast as they come, so many at once, so many times in a row."""
    reader = PolosReader(address)
    await count(reader, Prompt(1))  # the connections are made, the code is warm
    for _ in range(times):
        counts = await asyncio.gather(*(count(reader, Prompt(tokens)) for _ in range(runs)))
        assert counts == [tokens] * runs, f"tokens were lost: {counts}"
    return {"passed": times * runs * tokens}


async def count(reader: Reader, prompt: Prompt) -> int:
    """Read an answer and count its texts."""
    counted = 0
    async for _ in reader.texts(str(prompt)):
        counted += 1
    return counted


async def growth(address: str, tokens: int, window: int) -> Measured:
    """Read one long answer; return the rate over its first and its last tokens."""
    reader = PolosReader(address)
    await count(reader, Prompt(1))
    marks = [0.0] * (tokens + 1)
    at = 0
    async for _ in reader.texts(str(Prompt(tokens))):
        at += 1
        marks[at] = time.perf_counter()
    assert at == tokens, f"tokens were lost: {at} of {tokens} arrived"
    skipped = tokens // 100  # until the connections of the answer have found their pace
    return {
        "first": window / (marks[skipped + window] - marks[skipped]),
        "last": window / (marks[tokens] - marks[tokens - window]),
    }


async def paced(address: str, runs: int, rate: int, seconds: float) -> Measured:
    """Read paced answers; return the tokens of those that ended, and how many did not in time."""
    reader = PolosReader(address)
    prompt = Prompt(int(rate * (seconds + 2 * START_UP)), rate)

    async def read(wait: float) -> int:
        await asyncio.sleep(wait)
        return await count(reader, prompt)

    reads = [asyncio.create_task(read(START_UP * index / runs)) for index in range(runs)]
    done, late = await asyncio.wait(reads, timeout=seconds + 6 * START_UP)
    for one in late:
        one.cancel()
    await asyncio.gather(*late, return_exceptions=True)
    return {"passed": sum(one.result() for one in done), "late": len(late)}


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
