"""What a round on a cluster does: all from a seed."""

from __future__ import annotations

import random
from dataclasses import dataclass

from chaos.places import BLOWS, REPLICA, SERVICES, Place
from chaos.plan import CLIENTS, PASSAGES, Cut, cut, due_places, run_plan
from chaos.work import RunPlan

SIZE = 3
"""Replicas of the service, and servers of NATS."""

CLAIM_TIMEOUT = 2.0
"""Seconds of silence after which a replica loses its runs; the replicas are told so."""

BLOWS_EACH = 5
"""Blows of a round."""

DEATHS_EACH = 2
"""How many of them are the death of a replica at a place inside its process."""

SLOWNESS = 8
"""How many times longer the model takes than beside a file: a blow is to meet many runs."""

SHARE = 3
"""A replica passes a place so many times less often than a service that is alone."""

AFTER = (10, 150)
"""Events that the readers see in a life before it ends with a blow: from, to."""

SERVICE_SECONDS = (1.2 * CLAIM_TIMEOUT, 3 * CLAIM_TIMEOUT)
"""Seconds for which a replica is stopped or cut off: from, to."""

NODE_SECONDS = (3.0, 11.0)
"""Seconds for which a server of NATS is stopped: from, to. NATS elects a new leader after 4 to
9 s."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Blow:
    """What happens to the cluster.

    Attributes:
        place: what.
        victim: the replica or server that it happens to.
        passage: the passage of a place inside the process that the replica dies at.
        after: events that readers see before.
        seconds: how long what is stopped or cut off stays so.
        reset: whether links are reset when they come back; else what was held back arrives.

    """

    place: Place
    victim: int
    passage: int
    after: int
    seconds: float
    reset: bool

    @property
    def faults(self) -> str:
        """What the launcher of the victim is told."""
        return f"{self.place}:{self.passage}"


@dataclass(frozen=True, kw_only=True, slots=True)
class ClusterPlan:
    """A round."""

    runs: tuple[RunPlan, ...]
    blows: tuple[Blow, ...]
    cuts: tuple[Cut, ...]


def cluster_plan(
    seed: int,
    number: int,
    runs: int = 48,
    blows: int = BLOWS_EACH,
    places: tuple[Place, ...] = (),
) -> ClusterPlan:
    """Return the round of that number; `places`, where given, are those of its first blows."""
    chance = random.Random(f"cluster/{seed}/{number}")
    due = [
        *due_places(seed, number, BLOWS_EACH - DEATHS_EACH, BLOWS),
        *due_places(seed, number, DEATHS_EACH, REPLICA),
    ]
    chance.shuffle(due)
    ways = (*places, *due)[:blows]
    return ClusterPlan(
        runs=tuple(
            run_plan(
                chance, f"{seed}-{number}-{index}", index * (blows + 1) // runs, index, SLOWNESS
            )
            for index in range(runs)
        ),
        blows=tuple(blow(chance, place) for place in ways),
        cuts=tuple(cut(chance, blows) for _ in range(CLIENTS)),
    )


def blow(chance: random.Random, place: Place) -> Blow:
    """Return what happens at a place."""
    seconds = SERVICE_SECONDS if place in SERVICES else NODE_SECONDS
    first, last = PASSAGES.get(place, (1, 1))
    return Blow(
        place=place,
        victim=chance.randrange(SIZE),
        passage=chance.randint(max(1, first // SHARE), max(1, last // SHARE)),
        after=chance.randint(*AFTER),
        seconds=chance.uniform(*seconds),
        reset=chance.random() < 1 / 2,
    )
