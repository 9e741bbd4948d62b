"""Rounds one after the other, and bugs one after the other."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import count
from typing import Any

from chaos.base import Result
from chaos.bugs import BUGS
from chaos.cluster.bugs import CLUSTER_BUGS, WORKER_BUGS
from chaos.cluster.plan import cluster_plan
from chaos.cluster.round import STUCK as CLUSTER_STUCK
from chaos.cluster.round import play_cluster
from chaos.faults import Bug
from chaos.places import CLUSTER, ONE_PROCESS, WORKERS, Place
from chaos.plan import plan
from chaos.provider import Provider
from chaos.report import Total
from chaos.round import play
from chaos.workers.plan import workers_plan
from chaos.workers.round import STUCK as WORKERS_STUCK
from chaos.workers.round import play_workers

BUG_ROUNDS = 5
"""Rounds in which a seeded bug must be found."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Game:
    """What is played: a service with a file, a cluster, or workers.

    Attributes:
        command: what plays it.
        plan: plans a round.
        play: plays a planned round.
        bugs: those that can be seeded.
        places: those that it is about.
        workers: rounds at once.
        bug_stuck: seconds after which a run hangs, in a round with few runs and a bug.

    """

    command: str
    plan: Callable[..., Any]
    play: Callable[..., Coroutine[Any, Any, Result]]
    bugs: Mapping[str, Bug]
    places: Sequence[Place]
    workers: int
    bug_stuck: float

    def small(self, seed: int, number: int, place: Place) -> Any:
        """Return a round with few runs, and one fault at this place."""
        return self.plan(seed, number, 8, 1, (place,))


ONE_SERVICE = Game(
    command="python -m chaos",
    plan=plan,
    play=play,
    bugs=BUGS,
    places=ONE_PROCESS,
    workers=2,  # most of a round is waiting for a process to start, or a link to come back
    bug_stuck=6.0,
)

ON_NATS = Game(
    command="python -m chaos --cluster",
    plan=cluster_plan,
    play=play_cluster,
    bugs=CLUSTER_BUGS,
    places=CLUSTER,
    workers=1,  # it is six processes
    bug_stuck=CLUSTER_STUCK,
)


def with_workers(number: int) -> Game:
    """Return the game of one service with workers."""
    return Game(
        command=f"python -m chaos --workers {number}",
        plan=workers_plan,
        play=partial(play_workers, number),
        bugs=WORKER_BUGS,
        places=WORKERS,
        workers=1,
        bug_stuck=WORKERS_STUCK,
    )


async def campaign(game: Game, seed: int, trials: int, only: int | None = None) -> Total:
    """Play rounds until there were so many trials, or one round."""
    total = Total()
    numbers = count() if only is None else iter([only])
    async with Provider() as provider, asyncio.TaskGroup() as group:

        async def worker() -> None:
            for number in numbers:
                result = await game.play(game.plan(seed, number), provider)
                total.add(f"{game.command} --seed {seed} --only {number}", result)
                print(total.line(number, result), file=sys.stderr, flush=True)
                if total.trials >= trials:
                    return

        for _ in range(game.workers):
            group.create_task(worker())
    return total


async def seeded_bugs(game: Game, seed: int) -> AsyncIterator[tuple[str, list[str]]]:
    """Yield each bug's name and what was found with it."""
    free = asyncio.Semaphore(game.workers)

    async def one(name: str) -> list[str]:
        async with free:
            return await seeded_bug(game, name, seed)

    async with asyncio.TaskGroup() as group:
        tasks = {name: group.create_task(one(name)) for name in game.bugs}
        for name, task in tasks.items():
            yield name, await task


async def seeded_bug(game: Game, name: str, seed: int) -> list[str]:
    """Play small rounds with a bug until it is found; return what was found."""
    place = game.bugs[name].place
    async with Provider() as provider:
        for number in range(BUG_ROUNDS):
            small = game.small(seed, number, place)
            result = await game.play(small, provider, bug=name, stuck=game.bug_stuck)
            if result.findings:
                return result.findings
    return []
