"""What the model calls of one run add up to."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from google.protobuf.message import Message

from polos.v1.event_pb2 import Cost, StepFinish, Usage

INT32_MAX = 2**31 - 1
"""The largest number of tokens that an event can hold; a greater sum stays at it."""

INT64_MAX = 2**63 - 1
"""The largest cost that an event can hold, in millionths of a dollar; a greater sum stays at it."""


MODEL_CALL = "llm"
"""The type of a step that calls a model."""


@dataclass(slots=True)
class Totals:
    """The sum over finished model calls, and over the ends of children.

    Attributes:
        usage: tokens, as far as providers told them, with those of the children that have ended.
        cost: the same for cost; None if that of any call is unknown, or there was no call.
        steps: how many calls, without those of children.

    """

    usage: Usage = field(default_factory=Usage)
    cost: Cost | None = None
    steps: int = 0
    _counted: bool = False

    def add(self, finish: StepFinish) -> None:
        """Add a finished step, if it is a model call."""
        if finish.step_type != MODEL_CALL:
            return
        self.steps += 1
        self._count(finish.usage, finish.cost if finish.HasField("cost") else None)

    def include(self, end: Message) -> None:
        """Add what the end of a child says of its model calls, and those of its children."""
        told: Any = end
        if told.usage.ListFields() or told.HasField("cost") or getattr(told, "total_steps", 0):
            self._count(told.usage, told.cost if told.HasField("cost") else None)

    def join(self, other: Totals) -> None:
        """Add what the model calls of a child add up to that has not ended."""
        if other._counted:
            self._count(other.usage, other.cost)

    def spent(self) -> dict[str, Any]:
        """Return the fields of the end of a run that has no model calls of its own."""
        return {"usage": self.usage, "cost": self.cost} if self._counted else {}

    def _count(self, usage: Usage, cost: Cost | None) -> None:
        known = cost is not None and not (self._counted and self.cost is None)
        micros = (self.cost.usd_micros if self.cost else 0) + (cost.usd_micros if cost else 0)
        self.cost = Cost(usd_micros=min(micros, INT64_MAX)) if known else None
        self._counted = True
        for kind, tokens in usage.ListFields():
            before = getattr(self.usage, kind.name)
            setattr(self.usage, kind.name, min(before + tokens, INT32_MAX))
