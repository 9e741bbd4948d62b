"""Answers to waits: what stands in a run's inbox for each wait.

There is one slot for a wait: the id of a command. The first writer wins, a caller who answers or
the holder of the claim who has seen the wait expire or given up. So two answers cannot both be
accepted, and a caller knows at once. The slot decides; the event `resumed` tells what it holds.

Once that event is durable, the slot is settled: what remains tells a repeated answer from another
one, and takes no room. It stays as long as the run is open.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Literal, Self

import orjson

from polos_service.store import CANCEL, EARLY, SETTLED, Command

ANSWER = "answer"
"""The kind of a command that says how a wait ends which the run has come to."""

UNSETTLED = frozenset({ANSWER, EARLY})
"""The kinds of commands that hold an answer as it was given."""

KINDS = UNSETTLED | {SETTLED}
"""The kinds of commands that stand in the slots of waits."""

APPROVE = "/approve"
"""How the key of an approval ends."""

ASK = "/ask"
"""How the key of a question ends."""

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
        """Return the answer that a command of one of KINDS holds; of a settled one, its ending.

        Raises:
            KeyError, TypeError, ValueError: it holds none that this version can read.

        """
        found = orjson.loads(command.payload)
        ending = found["ending"]
        if ending not in ("answered", "expired", "cancelled"):
            raise ValueError(f"a wait cannot end as {ending!r:.80}")
        if command.kind == SETTLED:
            return cls(ending=ending)
        return cls(
            ending=ending,
            data_json=found["data"],
            request_id=found["request_id"],
            principal=found["principal"],
        )

    def to(self, run_id: str, step_key: str, *, early: bool = False) -> Command:
        """Return the command that puts the answer into the slot of a wait.

        `early` says that the run has not come to the wait.
        """
        return Command(
            id=slot(run_id, step_key),
            kind=EARLY if early else ANSWER,
            run_id=run_id,
            step_key=step_key,
            payload=self._payload(),
        )

    def settled(self, run_id: str, step_key: str) -> Command:
        """Return what stands in the slot of a wait once the wait is over."""
        payload = {"ending": self.ending, "digest": self._digest()}
        return Command(
            id=slot(run_id, step_key), kind=SETTLED, run_id=run_id, payload=orjson.dumps(payload)
        )

    def said_by(self, command: Command) -> Answer:
        """Return what a slot holds: this answer itself, if it is the one.

        Raises:
            As `of`.

        """
        if command.kind == SETTLED and orjson.loads(command.payload)["digest"] == self._digest():
            return self
        return Answer.of(command)

    def _payload(self) -> bytes:
        return orjson.dumps(
            {
                "ending": self.ending,
                "data": self.data_json,
                "request_id": self.request_id,
                "principal": self.principal,
            }
        )

    def _digest(self) -> str:
        return hashlib.sha256(self._payload()).hexdigest()


EXPIRED = Answer(ending="expired")
"""How a wait ends that nobody has answered in time."""

CANCELLED = Answer(ending="cancelled")
"""How a wait ends that the run's code does not wait for any more, or a child that is cancelled."""


def cancelling(run_id: str) -> Command:
    """Return the command that cancels a child: it stands in the slot that no wait has."""
    return Command(id=slot(run_id, ""), kind=CANCEL, run_id=run_id)


def slot(run_id: str, step_key: str) -> str:
    """Return the id of the command that ends a wait of a run, root or child; or a child itself."""
    return f"wait-{hashlib.sha256(f'{run_id} {step_key}'.encode()).hexdigest()[:40]}"
