"""What the runs of a round ask people, and what each person is to answer: all from a seed."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

ASK_USER = "ask_user"
"""The tool with which the model asks a person; the answer is its result."""

APPROVED = ("pay", "sign", "hurry")
"""The tools that need approval. The arguments of `pay` may be changed, `sign` must not run twice,
and nobody may approve `hurry` after HURRY."""

HURRY = 0.25
"""Seconds after which an approval of `hurry` expires."""

EXPIRY = 1 / 3
"""The share of a workflow's questions that expire."""

NOWHERE = "nowhere"
"""A key that no wait has."""

Way = Literal["racing", "late", "misdirected", "invalid"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Said:
    """An answer that somebody sends.

    Attributes:
        way: `racing` answers are sent when the question is asked. The others follow: a `late` one
            once the question has its answer, a `misdirected` one with a key that no wait has or
            to another child, and an `invalid` one is none that the question takes.
        request_id: names the answer.
        data_json: the answer itself.
        delay: seconds for which whoever sends it waits before that.
        times: how often it is sent at once, with the same request id.
        named: whether it names the run that waits where that is a child, and not its root.

    """

    way: Way
    request_id: str
    data_json: str
    delay: float
    times: int
    named: bool = True

    @property
    def wrong(self) -> bool:
        """Whether nobody may accept it."""
        return self.way in {"misdirected", "invalid"}


@dataclass(frozen=True, kw_only=True, slots=True)
class Question:
    """A wait that somebody is to answer.

    Attributes:
        key: the wait's key.
        expires: whether it takes no answer after a while.
        early: whether the racing answers are sent before the run comes to it.
        answers: what is sent.

    """

    key: str
    expires: bool
    early: bool
    answers: tuple[Said, ...]

    @property
    def approval(self) -> bool:
        """Whether it is about a call of a tool."""
        return self.key.endswith("/approve")


def question(chance: random.Random, run: str, key: str, *, expires: bool) -> Question:
    """Return the question with this key, of the run with this name."""
    approval = key.endswith("/approve")
    racing = chance.choice((0, 1, 1, 3) if expires else (1, 1, 1, 3))
    ways: list[Way] = ["racing"] * racing
    ways += ["late"] * (chance.random() < 1 / 3)
    ways += ["misdirected"] * (chance.random() < 1 / 4)
    ways += ["invalid"] * (approval and chance.random() < 1 / 4)
    return Question(
        key=key,
        expires=expires,
        early=not approval and chance.random() < 1 / 4,
        answers=tuple(
            Said(
                way=way,
                request_id=f"{run}-{key}-{number}",
                data_json=json.dumps(data_of(chance, key, way, number)),
                delay=chance.choice((0, chance.uniform(0, 0.4))),
                times=chance.choice((1, 1, 2)),
                named=chance.random() < 1 / 2,
            )
            for number, way in enumerate(ways)
        ),
    )


def data_of(chance: random.Random, key: str, way: Way, number: int) -> Any:
    """Return the answer of that number to a question: no two are alike."""
    if not key.endswith("/approve"):
        return {"answer": number}
    told = {"feedback": f"word {number}"}
    if way == "invalid":
        return chance.choice(
            (
                {"approved": "maybe"} | told,
                {"approved": True, "arguments": {"amount": "many"}},
                {"approved": True, "arguments": {"nothing": 1}},
                {"approved": False, "arguments": {"amount": 1}},
            )
        )
    if chance.random() < 1 / 3:
        return {"approved": False} | told
    if tool_of(key) == "pay" and chance.random() < 1 / 2:
        return {"approved": True, "arguments": {"amount": 1_000_000 + number}}
    return {"approved": True} | told


def asked_by(key: str) -> str | None:
    """Return the key of what a tool's step with this key asks people; None if it asks nothing."""
    name = tool_of(key)
    if name in APPROVED:
        return f"{key}/approve"
    return f"{key}/ask" if name == ASK_USER else None


def tool_of(key: str) -> str:
    """Return the tool of a step, or of what that asks."""
    return key.partition("/")[0].partition(":")[0]


def arguments_of(name: str, turn: int, index: int) -> Mapping[str, Any]:
    """Return the arguments with which the model makes a call: that of this index in a turn."""
    if name in APPROVED:
        return {"amount": 100 * turn + index}
    return {"question": f"{turn}.{index}?"} if name == ASK_USER else {}
