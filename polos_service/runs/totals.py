"""What the model calls of one run add up to."""

from __future__ import annotations

from dataclasses import dataclass, field

from polos.v1.event_pb2 import Cost, StepFinish, Usage

INT32_MAX = 2**31 - 1
"""The largest number of tokens that an event can hold; a greater sum stays at it."""

INT64_MAX = 2**63 - 1
"""The largest cost that an event can hold, in millionths of a dollar; a greater sum stays at it."""


MODEL_CALL = "llm"
"""The type of a step that calls a model."""


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
        if finish.step_type != MODEL_CALL:
            return
        known = finish.HasField("cost") and not (self.steps and self.cost is None)
        micros = (self.cost.usd_micros if self.cost else 0) + finish.cost.usd_micros
        self.cost = Cost(usd_micros=min(micros, INT64_MAX)) if known else None
        self.steps += 1
        for kind, tokens in finish.usage.ListFields():
            before = getattr(self.usage, kind.name)
            setattr(self.usage, kind.name, min(before + tokens, INT32_MAX))
