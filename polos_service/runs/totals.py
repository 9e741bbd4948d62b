"""What the model calls of a run and its children add up to: what stands, and what was spent.

The sums are a fold of the log, kept up to date with what is recorded. So they are right whatever
the run's code has asked for again, and if it does not run at all.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any
from weakref import WeakValueDictionary

from google.protobuf.message import Message

from polos.v1.error_pb2 import FailureReason
from polos.v1.event_pb2 import Cost, StepFinish, StepRetry, Usage
from polos_service.runs.lineage import Lineage

INT32_MAX = 2**31 - 1
"""The largest number of tokens that an event can hold; a greater sum stays at it."""

INT64_MAX = 2**63 - 1
"""The largest cost that an event can hold, in millionths of a dollar; a greater sum stays at it."""

MODEL_CALL = "llm"
"""The type of a step that calls a model."""

CALLS, UNPRICED, MICROS = "calls", "unpriced", "usd_micros"
"""What is counted besides tokens: calls, those whose cost is not known, and the cost of others."""


class Sum:
    """The sum over model calls, exact and without a bound, so that calls can be taken out again."""

    __slots__ = ("_counts",)

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()

    @classmethod
    def of(cls, usage: Usage, cost: Cost | None) -> Sum:
        """Return the sum over one call; without a cost if that is not known."""
        one = cls()
        counts = one._counts
        counts[CALLS], counts[UNPRICED] = 1, int(cost is None)
        counts[MICROS] = cost.usd_micros if cost else 0
        for kind, tokens in usage.ListFields():
            counts[kind.name] = tokens
        return one

    def add(self, other: Sum) -> None:
        """Put calls in."""
        self._counts.update(other._counts)

    def take(self, other: Sum) -> None:
        """Take calls out that were put in."""
        self._counts.subtract(other._counts)

    @property
    def calls(self) -> int:
        """How many calls there are."""
        return self._counts[CALLS]

    @property
    def tokens(self) -> int:
        """Tokens, input and output."""
        counts = self._counts
        return max(counts["total_tokens"], counts["input_tokens"] + counts["output_tokens"])

    @property
    def usd_micros(self) -> int:
        """Cost in millionths of a dollar, as far as it is known."""
        return self._counts[MICROS]

    @property
    def usage(self) -> Usage:
        """Tokens by kind, as far as providers told them."""
        fields = Usage.DESCRIPTOR.fields_by_name
        known = {name: min(count, INT32_MAX) for name, count in self._counts.items()}
        return Usage(**{name: count for name, count in known.items() if name in fields})

    @property
    def cost(self) -> Cost | None:
        """The cost; None if that of any call is unknown, or there is no call."""
        known = self.calls and not self._counts[UNPRICED]
        return Cost(usd_micros=min(self.usd_micros, INT64_MAX)) if known else None


class Totals:
    """What the model calls of one run add up to, with those of its children.

    A child's calls count in the run unless the attempt that began the child is void.

    Attributes:
        steps: the run's own calls that finished.
        standing: the calls that stand: they finished, and are not void.
        spent: these, and calls that failed or are void, as far as their tokens were reported.
        above: those of the parent, and whether the run's calls count as standing there; None at
            the root run.

    """

    __slots__ = ("__weakref__", "_children", "above", "spent", "standing", "steps")

    def __init__(self, above: Totals | None = None) -> None:
        self.steps = 0
        self.standing = Sum()
        self.spent = Sum()
        self.above: tuple[Totals, bool] | None = (above, True) if above else None
        self._children: dict[str, list[Totals]] = {}
        """Those that a `step_retry` can still void, by the step that began them."""

    def child(self, step_key: str) -> Totals:
        """Return the totals of a child that a step of the run begins."""
        child = Totals(self)
        self._children.setdefault(step_key, []).append(child)
        return child

    def add(self, payload: Message) -> None:
        """Take an event of the run into account."""
        if isinstance(payload, StepRetry):
            self._void(payload.step_key)
            if payload.HasField("usage"):
                self._count(call_of(payload), stands=False)
        elif isinstance(payload, StepFinish):
            if payload.step_type == MODEL_CALL:
                self._finish(payload)
            elif payload.failure.reason != FailureReason.FAILURE_REASON_STEP_CANCELLED:
                self._children.pop(payload.step_key, None)  # it never begins anew

    def told(self) -> dict[str, Any]:
        """Return the fields of the run's last event that tell them."""
        return {
            "usage": self.standing.usage,
            "cost": self.standing.cost,
            "spent": self.spent.usage,
            "spent_cost": self.spent.cost,
        }

    def _finish(self, finish: StepFinish) -> None:
        failed = finish.HasField("failure")
        self.steps += not failed
        if not failed or finish.HasField("usage"):
            self._count(call_of(finish), stands=not failed)

    def _count(self, call: Sum, *, stands: bool) -> None:
        self.spent.add(call)
        if stands:
            self.standing.add(call)
        for above, as_standing in self.ancestors():
            stands = stands and as_standing
            above.spent.add(call)
            if stands:
                above.standing.add(call)

    def _void(self, step_key: str) -> None:
        """Take out what the earlier attempts of a step have begun."""
        for child in self._children.pop(step_key, ()):
            for above, as_standing in child.ancestors():
                if not as_standing:
                    break
                above.standing.take(child.standing)
            child.above = self, False

    def ancestors(self) -> Iterator[tuple[Totals, bool]]:
        """Yield `above`, that of the parent, and so on."""
        above = self.above
        while above is not None:
            yield above
            above = above[0].above


class TreeTotals:
    """The totals of a root run and its children.

    Attributes:
        root: those of the root run.

    """

    def __init__(self, root: str) -> None:
        self.root = Totals()
        self._runs = WeakValueDictionary({root: self.root})

    def of(self, lineage: Lineage) -> Totals:
        """Return the totals of a run; its parent is known before it."""
        found = self._runs.get(lineage.run_id)
        if found is None:
            origin = lineage.origin
            above = self._runs.get(origin.run_id, self.root) if origin else self.root
            found = above.child(origin.step_key) if origin else Totals()
            self._runs[lineage.run_id] = found
        return found


def call_of(told: StepFinish | StepRetry) -> Sum:
    """Return what an event tells of one model call."""
    return Sum.of(told.usage, told.cost if told.HasField("cost") else None)
