"""What a round on workers does: all from a seed."""

from __future__ import annotations

import random

from chaos.cluster.plan import SERVICE_SECONDS, SLOWNESS, Blow, ClusterPlan
from chaos.places import TO_WORKERS, Place
from chaos.plan import CLIENTS, cut, due_places, run_plan

BLOWS_EACH = 5
"""Blows of a round."""

AFTER = (10, 150)
"""Events that the readers see in a life before it ends with a blow: from, to."""


def workers_plan(
    seed: int,
    number: int,
    runs: int = 48,
    blows: int = BLOWS_EACH,
    places: tuple[Place, ...] = (),
) -> ClusterPlan:
    """Return the round of that number; `places`, where given, are those of its first blows."""
    chance = random.Random(f"workers/{seed}/{number}")
    due = due_places(seed, number, BLOWS_EACH, TO_WORKERS)
    chance.shuffle(due)
    return ClusterPlan(
        runs=tuple(
            run_plan(
                chance, f"{seed}-{number}-{index}", index * (blows + 1) // runs, index, SLOWNESS
            )
            for index in range(runs)
        ),
        blows=tuple(
            Blow(
                place=place,
                victim=chance.randrange(1000),
                passage=1,
                after=chance.randint(*AFTER),
                seconds=chance.uniform(*SERVICE_SECONDS),
                reset=False,
            )
            for place in (*places, *due)[:blows]
        ),
        cuts=tuple(cut(chance, blows) for _ in range(CLIENTS)),
    )
