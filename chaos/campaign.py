"""Rounds one after the other, and bugs one after the other."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterator
from itertools import count

from chaos.bugs import BUGS
from chaos.plan import plan
from chaos.provider import Provider
from chaos.report import Total
from chaos.round import play

WORKERS = 2
"""Rounds at once: most of a round is waiting for a process to start, or a link to come back."""

BUG_ROUNDS = 5
"""Rounds in which a seeded bug must be found."""

BUG_STUCK = 6.0
"""Seconds after which a run hangs, in a round with few runs and a bug."""


async def campaign(seed: int, trials: int, only: int | None = None) -> Total:
    """Play rounds until there were so many trials, or one round."""
    total = Total()
    numbers = count() if only is None else iter([only])
    async with Provider() as provider, asyncio.TaskGroup() as group:
        for _ in range(WORKERS):
            group.create_task(worker(total, seed, trials, numbers, provider))
    return total


async def worker(
    total: Total, seed: int, trials: int, numbers: Iterator[int], provider: Provider
) -> None:
    """Play rounds and add them up, until there were so many trials."""
    for number in numbers:
        result = await play(plan(seed, number), provider)
        total.add(seed, number, result)
        print(total.line(number, result), file=sys.stderr, flush=True)
        if total.trials >= trials:
            return


async def seeded_bug(name: str, seed: int) -> list[str]:
    """Play small rounds with a bug until it is found; return what was found."""
    places = (BUGS[name].place,)
    async with Provider() as provider:
        for number in range(BUG_ROUNDS):
            small = plan(seed, number, runs=8, deaths=1, places=places)
            result = await play(small, provider, bug=name, stuck=BUG_STUCK)
            if result.findings:
                return result.findings
    return []
