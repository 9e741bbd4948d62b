"""Runs that start others, and those again others: what they do, from a seed."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass, replace

from chaos.moves import APART, KINDS, Move, keys_of, move
from chaos.work import Turn, Work, questions, turn

DEPTH = 2
"""Runs above a run of a tree, at most: it has children, and these have children."""

PARENTS = ("child", "child", "batch", "batch", "retry", "dare")
"""The kinds of moves with children, as often as each stands here."""

FALLS = (0, 0, 0, 0, 1)
"""How often the function of a workflow raises an exception; it starts over then."""

FALLS_FOR_GOOD = 3
"""How often it must raise one to fail: it starts over twice."""


@dataclass(frozen=True, slots=True)
class Branch:
    """A run that another starts.

    Attributes:
        key: the key of the step.
        work: what the run does.
        given_up: whether the code may give it up.

    """

    key: str
    work: Work
    given_up: bool


def branches(work: Work) -> Iterator[Branch]:
    """Yield the children that a run starts."""
    for number, one in enumerate(work.moves):
        if one.kind in APART:
            continue
        keys = keys_of(one.kind, number, len(one.children))
        for key, child in zip(keys, one.children, strict=True):
            yield Branch(key, child, one.kind == "dare")


def apart(work: Work) -> Iterator[tuple[int, Branch]]:
    """Yield the runs with logs of their own that a run starts, each with its move's number."""
    for number, one in enumerate(work.moves):
        if one.kind in APART:
            (key,) = keys_of(one.kind, number, 1)
            yield number, Branch(key, one.children[0], given_up=False)


def agent_work(chance: random.Random, name: str, count: int, slowness: float) -> Work:
    """Return what a run of the agent does, whose model makes so many turns."""
    turns = tuple(turn(chance, slowness, last=number == count - 1) for number in range(count))
    return worked(chance, name, turns=turns)


def flow_work(chance: random.Random, name: str) -> Work:
    """Return what a run of the workflow does that has no children."""
    return worked(chance, name, moves=moves(chance, chance.randint(3, 9)))


def tree_work(chance: random.Random, name: str, slowness: float, depth: int = 0) -> Work:
    """Return what a run of the workflow does that has children."""
    steps = moves(chance, chance.randint(1, 3) if depth == 0 else 1)
    count = chance.choice((1, 2, 3)) if depth == 0 else 1
    kinds = [chance.choice(PARENTS if depth else (*PARENTS, *APART)) for _ in range(count)]
    starts = [
        move(chance, kind, tuple(children(chance, f"{name}.{number}", kind, slowness, depth + 1)))
        for number, kind in enumerate(kinds)
    ]
    every = [*steps, *starts]
    chance.shuffle(every)
    return not_early(worked(chance, name, moves=tuple(every), falls=chance.choice(FALLS)))


def children(
    chance: random.Random, name: str, kind: str, slowness: float, depth: int
) -> Iterator[Work]:
    """Yield what the children of a move do."""
    if kind == "retry":
        failing = worked(chance, f"{name}.f", moves=moves(chance, 1), falls=FALLS_FOR_GOOD)
        yield not_early(failing)
    for index in range(chance.randint(2, 4) if kind == "batch" else 1):
        yield not_early(child(chance, f"{name}.{index}", slowness, depth))


def child(chance: random.Random, name: str, slowness: float, depth: int) -> Work:
    """Return what a child does, with `depth` runs above it."""
    if chance.random() < 1 / 2:
        return agent_work(chance, name, chance.choice((1, 2)), slowness)
    if depth < DEPTH and chance.random() < 1 / 2:
        return tree_work(chance, name, slowness, depth)
    falls = chance.choice((*FALLS, FALLS_FOR_GOOD))
    return worked(chance, name, moves=moves(chance, chance.randint(1, 3)), falls=falls)


def not_early(work: Work) -> Work:
    """Let nobody answer before a question is open: a key alone may name those of several runs."""
    return replace(work, questions=tuple(replace(one, early=False) for one in work.questions))


def worked(
    chance: random.Random,
    name: str,
    *,
    turns: tuple[Turn, ...] = (),
    moves: tuple[Move, ...] = (),
    falls: int = 0,
) -> Work:
    """Return what a run does, with what it asks people."""
    asked = tuple(questions(chance, name, turns, moves))
    return Work(name=name, turns=turns, moves=moves, falls=falls, questions=asked)


def moves(chance: random.Random, count: int) -> tuple[Move, ...]:
    """Return so many moves without children."""
    return tuple(move(chance, chance.choice(KINDS)) for _ in range(count))
