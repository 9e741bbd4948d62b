"""What a run does, whether a caller starts it or another run: all from a seed."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from chaos.moves import Move, key_of
from chaos.questions import (
    APPROVED,
    ASK_USER,
    Question,
    arguments_of,
    asked_by,
    question,
    tool_of,
)

TOOLS = ("jot", "block", "once", "break", *APPROVED, ASK_USER)
"""The tools of the app: `async def`, `def`, one that must not run twice, one that raises
an exception that cannot be formatted, and those that ask people."""

ID_SIZES = (4, 4, 4, 3_000, 150_000)
"""Characters of the ids of a turn's tool calls: ordinary ones, some that hold a model's state,
and some that are beyond every bound."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Turn:
    """What the model does in a turn.

    Attributes:
        tokens: how many it says.
        burst: how many come at once.
        gap: seconds between two bursts.
        calls: the tools it calls then.
        breaks: tokens after which its first answer breaks off; None: it does not.
        id_size: characters of the ids of its tool calls.

    """

    tokens: int
    burst: int
    gap: float
    calls: tuple[str, ...]
    breaks: int | None
    id_size: int

    def words(self, number: int, request: int, count: int | None = None) -> list[str]:
        """Return the first `count` tokens of the answer to a request: no two answers are alike."""
        size = self.tokens if count is None else count
        return [f"{number}.{index}r{request} " for index in range(size)]

    def text(self, number: int, request: int) -> str:
        """Return the whole answer to a request."""
        return "".join(self.words(number, request))


@dataclass(frozen=True, kw_only=True, slots=True)
class Work:
    """What a run does.

    Attributes:
        name: what it is started with; the provider knows the run by it.
        turns: what the model does, if it is a run of the agent.
        questions: what it asks people.
        moves: what it does if it is a run of the workflow; it has no turns then.
        falls: how often the workflow's function raises an exception once it has made its moves.

    """

    name: str
    turns: tuple[Turn, ...]
    questions: tuple[Question, ...]
    moves: tuple[Move, ...] = ()
    falls: int = 0

    def told(self) -> dict[str, Any]:
        """Return what the workflow that does this, or starts it, is told of it."""
        return {
            "name": self.name,
            "moves": [move.told() for move in self.moves],
            "falls": self.falls,
        }

    def all(self) -> Iterator[Work]:
        """Yield this and what its children do, and theirs."""
        yield self
        for move in self.moves:
            for child in move.children:
                yield from child.all()


@dataclass(frozen=True, kw_only=True, slots=True)
class RunPlan(Work):
    """A run that a caller starts.

    Attributes:
        life: the service's process, from 0, in whose time the run is started.
        delay: seconds that the start waits then.
        client: the client that starts and reads it.
        cancel: seconds after its start at which it is cancelled; None: it is not.
        hops: events after which its second reader leaves and comes back; empty: there is none.
        chunks: whether a third reader reads its text.

    """

    life: int
    delay: float
    client: int
    cancel: float | None
    hops: tuple[int, ...]
    chunks: bool


def of_work(plan: RunPlan, work: Work) -> RunPlan:
    """Return the plan of a run that another starts: as the plan of that, but with other work."""
    return replace(
        plan,
        name=work.name,
        turns=work.turns,
        moves=work.moves,
        questions=work.questions,
        falls=work.falls,
    )


def questions(
    chance: random.Random, run: str, turns: Sequence[Turn], does: Sequence[Move]
) -> Iterator[Question]:
    """Yield what a run asks people."""
    for key in map(asked_by, calls_of(turns)):
        if key is not None:
            yield question(chance, run, key, expires=tool_of(key) == "hurry")
    for number, move in enumerate(does):
        if move.kind == "ask":
            yield question(chance, run, key_of(number), expires=move.expires)


def calls_of(turns: Sequence[Turn]) -> Mapping[str, Mapping[str, Any]]:
    """Return the arguments of a run's tool calls, by the key of their step."""
    uses: Counter[str] = Counter()
    found = {}
    for number, one in enumerate(turns, 1):
        for index, name in enumerate(one.calls):
            uses[name] += 1
            key = name if uses[name] == 1 else f"{name}:{uses[name]}"
            found[key] = arguments_of(name, number, index)
    return found


def turn(chance: random.Random, slowness: float, *, last: bool) -> Turn:
    """Return a turn; the last one calls no tool."""
    tokens = chance.randint(4, 40)
    return Turn(
        tokens=tokens,
        burst=chance.randint(1, 5),
        gap=chance.uniform(0.001, 0.02) * slowness,
        calls=() if last else tuple(chance.choice(TOOLS) for _ in range(chance.randint(1, 3))),
        breaks=chance.randint(0, tokens - 1) if chance.random() < 1 / 6 else None,
        id_size=chance.choice(ID_SIZES),
    )
