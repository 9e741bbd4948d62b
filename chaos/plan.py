"""What a round does, and what each of its runs has to say: all from a seed."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from chaos.places import INSIDE, LINKS, OUTSIDE, RECOVERY, Place
from chaos.tree import agent_work, flow_work, tree_work
from chaos.work import RunPlan

DEATHS = 4
"""Deaths of the service in a round; a run is claimed at most once more, and not given up."""

PATIENCE = 6.0
"""Seconds in which a process must reach the place that it is to die at; it takes well below
one where the machine has nothing else to do."""

FLOWS, TREES = 1 / 4, 1 / 4
"""The shares of runs that are runs of the workflow without children, and with some."""

CLIENTS = 3
"""Clients of a round, each behind a link of its own."""

PASSAGES: Mapping[Place, tuple[int, int]] = {
    Place.START: (1, 3),
    Place.START_ACK: (1, 3),
    Place.MID_DELTA: (10, 150),
    Place.COMMIT: (5, 120),
    Place.APPEND_ACK: (5, 120),
    Place.BEFORE_TOOL: (1, 5),
    Place.MID_TOOL: (1, 5),
    Place.AFTER_TOOL: (1, 5),
    Place.STEP_END: (1, 10),
    Place.TERMINAL: (1, 3),
    Place.TERMINAL_ACK: (1, 3),
    Place.OPEN: (1, 1),
    Place.CLAIM: (1, 4),
    Place.FOLD: (1, 4),
    Place.STOLEN: (15, 60),
    Place.ASKED: (1, 6),
    Place.PARK: (1, 6),
    Place.PARKED: (1, 6),
    Place.REPLY: (1, 4),
    Place.ANSWERED: (1, 4),
    Place.WOKEN: (1, 6),
    Place.TIMER: (1, 4),
    Place.EXPIRED: (1, 2),
    Place.RESUMED: (1, 6),
    Place.DECIDED: (1, 5),
    Place.CHILD: (1, 8),
    Place.CHILD_END: (1, 8),
    Place.ENTRY: (1, 4),
    Place.CHILD_PARK: (1, 3),
    Place.CHILD_AGAIN: (1, 4),
    Place.INVOKED: (1, 3),
    Place.AWAITED: (1, 2),
}
"""At which passage of a place a fault strikes: from, to."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Death:
    """How a process of the service ends.

    Attributes:
        place: where; outside, or at a place inside it.
        passage: the passage of the place that it dies at.
        patience: seconds after which it is killed from outside if it has not died.
        steal: each so-manieth append finds its claim stolen; 0: none does.
        mute: whether its standard error cannot be written.

    """

    place: Place
    passage: int
    patience: float
    steal: int
    mute: bool

    @property
    def faults(self) -> str:
        """What the launcher is told."""
        told = [] if self.place in OUTSIDE else [f"{self.place}:{self.passage}"]
        if self.steal:
            told.append(f"{Place.STOLEN}:{self.steal}")
        if self.mute:
            told.append(f"{Place.MUTE}:1")
        return ",".join(told)


@dataclass(frozen=True, kw_only=True, slots=True)
class Cut:
    """A fault of a client's link, when its readers have seen `after` events.

    `size` is the seconds for which it is silent, or the bytes that it lets pass.
    """

    place: Place
    client: int
    after: int
    size: float


@dataclass(frozen=True, kw_only=True, slots=True)
class RoundPlan:
    """A round."""

    runs: tuple[RunPlan, ...]
    deaths: tuple[Death, ...]
    cuts: tuple[Cut, ...]


def plan(
    seed: int,
    number: int,
    runs: int = 32,
    deaths: int = DEATHS,
    places: tuple[Place, ...] = (),
) -> RoundPlan:
    """Return the round of that number; `places`, where given, are those of its first deaths."""
    chance = random.Random(f"{seed}/{number}")
    ways = (*places, *turn_of_places(seed, number, deaths))[:deaths]
    return RoundPlan(
        runs=tuple(
            run_plan(chance, f"{seed}-{number}-{index}", index * (deaths + 1) // runs, index)
            for index in range(runs)
        ),
        deaths=tuple(death(chance, place) for place in ways),
        cuts=tuple(cut(chance, deaths) for _ in range(2 * deaths)),
    )


def turn_of_places(seed: int, number: int, deaths: int) -> list[Place]:
    """Return the places whose turn it is: over the rounds, each comes equally often."""
    due = due_places(seed, number, deaths, (*INSIDE, *OUTSIDE))
    # The first process has nothing to recover yet.
    return sorted(due, key=lambda place: place in RECOVERY)


def due_places(seed: int, number: int, count: int, places: Sequence[Place]) -> list[Place]:
    """Return so many of the places: over the rounds, each comes equally often."""
    order = list(places)
    random.Random(seed).shuffle(order)
    begin = number * count
    return [order[(begin + index) % len(order)] for index in range(count)]


def run_plan(
    chance: random.Random, name: str, life: int, index: int, slowness: float = 1
) -> RunPlan:
    """Return a run; the model of an agent's takes so many times longer between its bursts."""
    kind = chance.random()
    if kind < TREES:
        work = tree_work(chance, name, slowness)
    elif kind < TREES + FLOWS:
        work = flow_work(chance, name)
    else:
        work = agent_work(chance, name, chance.randint(1, 4), slowness)
    return RunPlan(
        name=name,
        turns=work.turns,
        questions=work.questions,
        moves=work.moves,
        falls=work.falls,
        life=life,
        delay=chance.uniform(0, 0.6),
        client=index % CLIENTS,
        cancel=chance.uniform(0, 1.5) if chance.random() < 1 / 8 else None,
        hops=tuple(chance.randint(1, 9) for _ in range(40)) if chance.random() < 1 / 3 else (),
        chunks=chance.random() < 1 / 2,
    )


def death(chance: random.Random, place: Place) -> Death:
    """Return how a process dies."""
    outside = place in OUTSIDE
    return Death(
        place=place,
        passage=1 if outside else chance.randint(*PASSAGES[place]),
        patience=chance.uniform(0.2, 1.0) if outside else PATIENCE,
        steal=chance.randint(*PASSAGES[Place.STOLEN]) if chance.random() < 1 / 2 else 0,
        mute=chance.random() < 1 / 4,
    )


def cut(chance: random.Random, deaths: int) -> Cut:
    """Return a fault of a link."""
    place = chance.choice(LINKS)
    return Cut(
        place=place,
        client=chance.randrange(CLIENTS),
        after=chance.randint(5, 150 * deaths),
        size=chance.uniform(0.2, 0.8) if place is Place.LINK_STALL else chance.randint(1, 4000),
    )
