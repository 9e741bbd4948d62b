"""What the model calls of a run add up to."""

from __future__ import annotations

from dataclasses import dataclass, field

from polos.v1.event_pb2 import Cost, StepFinish, Usage

INT32_MAX, INT64_MAX = 2**31 - 1, 2**63 - 1
"""The largest sums that an event can tell; a greater sum stays at them."""


@dataclass(slots=True)
class Totals:
    """The sum over finished model calls.

    Attributes:
        usage: tokens, as far as providers told them.
        cost: None if that of any call is unknown, or there was no call.
        steps: how many calls.

    """

    usage: Usage = field(default_factory=Usage)
    cost: Cost | None = None
    steps: int = 0

    def add(self, finish: StepFinish) -> None:
        """Add a finished step, if it is a model call."""
        if finish.step_type != "llm":
            return
        self.cost = self._sum(finish)
        self.steps += 1
        self._count(finish.usage)

    def _sum(self, finish: StepFinish) -> Cost | None:
        if not finish.HasField("cost") or (self.steps and self.cost is None):
            return None
        before = self.cost.usd_micros if self.cost else 0
        return Cost(usd_micros=min(before + finish.cost.usd_micros, INT64_MAX))

    def _count(self, usage: Usage) -> None:
        for kind, tokens in usage.ListFields():
            before = getattr(self.usage, kind.name)
            setattr(self.usage, kind.name, min(before + tokens, INT32_MAX))
