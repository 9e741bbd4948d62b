"""Answers to waits: what stands in a run's inbox for each wait.

There is one slot for a wait: the id of a command. The first writer wins, a caller who answers or
the holder of the claim who has seen the wait expire. So two answers cannot both be accepted, and
a caller knows at once.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Literal, Self

import orjson

from polos_service.store import Command

ANSWER = "answer"
"""The kind of a command that says how a wait ends."""

APPROVE = "/approve"
"""How the key of an approval ends."""

Ending = Literal["answered", "expired", "cancelled"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Answer:
    """How a wait ends.

    Attributes:
        ending: what ended it.
        data_json: the answer as JSON text; empty unless it was answered.
        request_id: tells a repeated answer; empty if there is none.
        principal: who answered; empty unless it was answered.

    """

    ending: Ending = "answered"
    data_json: str = ""
    request_id: str = ""
    principal: str = ""

    @classmethod
    def of(cls, command: Command) -> Self:
        """Return the answer that a command of kind ANSWER holds.

        Raises:
            ValueError: it holds none that this version can read.

        """
        found = orjson.loads(command.payload)
        ending = found["ending"]
        if ending not in ("answered", "expired", "cancelled"):
            raise ValueError(f"a wait cannot end as {ending!r:.80}")
        return cls(
            ending=ending,
            data_json=found["data"],
            request_id=found["request_id"],
            principal=found["principal"],
        )

    def to(self, run_id: str, step_key: str) -> Command:
        """Return the command that puts the answer into the slot of a wait."""
        payload = {
            "ending": self.ending,
            "data": self.data_json,
            "request_id": self.request_id,
            "principal": self.principal,
        }
        return Command(
            id=slot(run_id, step_key),
            kind=ANSWER,
            run_id=run_id,
            step_key=step_key,
            payload=orjson.dumps(payload),
        )


def slot(run_id: str, step_key: str) -> str:
    """Return the id of the command that ends a wait of a run, root or child."""
    return f"wait-{hashlib.sha256(f'{run_id} {step_key}'.encode()).hexdigest()[:40]}"
