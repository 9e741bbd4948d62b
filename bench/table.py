"""What a benchmark found: goals with the figures beside them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field
from statistics import median
from typing import Any

from bench.targets import LABELS

Samples = dict[str, list[float]]
"""By target, a figure for each round."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Goal:
    """One goal of the table and what was measured.

    Attributes:
        figure: compared with the bound.
        most: True if the figure may be at most the bound, else it has to be at least that.
        unit: written behind both.
        why: what keeps the figure from the bound, as far as it is known; told where it is missed.

    """

    text: str
    figure: float
    bound: float
    most: bool = False
    unit: str = "x"
    why: str = ""

    @property
    def met(self) -> bool:
        """Whether the figure is on the right side of the bound."""
        return self.figure <= self.bound if self.most else self.figure >= self.bound

    @property
    def wanted(self) -> str:
        """The bound in words."""
        return f"{'≤' if self.most else '≥'} {self.bound:g} {self.unit}"

    @property
    def found(self) -> str:
        """The figure in words."""
        digits = f"{self.figure:,.0f}" if self.figure >= 1000 else f"{self.figure:.3g}"
        return f"{digits} {self.unit}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """What a token took on its way, and how much of the load arrived.

    Attributes:
        service: microseconds of CPU for each token that arrived, of the service's processes.
        provider: the same, of the mock provider.
        client: the same, of the load generator.
        delivered: the share of the tokens due that arrived.

    """

    service: float
    provider: float
    client: float
    delivered: float

    @property
    def words(self) -> list[str]:
        """The figures in words."""
        spent = [f"{cpu:.3g}" for cpu in (self.service, self.provider, self.client)]
        return [*spent, f"{self.delivered:.1%}"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One question, its goals and the figures of each target.

    Attributes:
        name: as `--only` takes it.
        figures: by target, in `unit`, one a round.
        costs: by target, where the compiled programs measured it.
        date: when it was measured, as YYYY-MM-DD.

    """

    name: str
    title: str
    unit: str
    figures: Samples
    goals: list[Goal]
    notes: dict[str, Any] = field(default_factory=dict)
    costs: dict[str, Cost] = field(default_factory=dict)
    date: str = ""

    @classmethod
    def of(cls, found: dict[str, Any]) -> Row:
        """Return a row of the results file."""
        goals = [Goal(**{k: v for k, v in one.items() if k != "met"}) for one in found["goals"]]
        costs = {name: Cost(**one) for name, one in found["costs"].items()}
        return cls(**found | {"goals": goals, "costs": costs})

    @property
    def written(self) -> dict[str, Any]:
        """The row as the results file has it."""
        goals = [asdict(goal) | {"met": goal.met} for goal in self.goals]
        return asdict(self) | {"goals": goals}

    @property
    def rounds(self) -> int:
        """How many rounds were measured."""
        return max(map(len, self.figures.values()))


LOOP = (
    "One thread runs the event loop of a process, and a token that arrives alone takes it about "
    "200 µs here, of which reading it from the provider takes 60, writing it as a gRPC message 50, "
    "and storing it and waking its reader 50. The code runs about four times as long as in a loop "
    "that does nothing else, because its data leaves the processor's caches between two tokens."
)
"""Why goals about tokens that arrive alone are missed."""


def rounds_of(rounds: int, names: Iterable[str], measure: Callable[[str], float]) -> Samples:
    """Measure the targets one after the other, so many times."""
    samples: Samples = defaultdict(list)
    for _ in range(rounds):
        for name in names:
            samples[name].append(measure(name))
    return dict(samples)


def ratio(samples: Samples, peer: str, name: str = "polos") -> float:
    """Return the median over the rounds of a target's figure, the product's, by the peer's."""
    pairs = zip(samples[name], samples[peer], strict=True)
    return median(own / other for own, other in pairs)


def at_least(samples: Samples, peer: str, bound: float, why: str = "", name: str = "polos") -> Goal:
    """Return the goal of so many times the peer's figure."""
    label = LABELS[peer]
    return Goal(text=f"by {label}", figure=ratio(samples, peer, name), bound=bound, why=why)


def at_most(samples: Samples, peer: str, bound: float, why: str = "") -> Goal:
    """Return the goal of at most so many times the peer's figure."""
    label = LABELS[peer]
    return Goal(text=f"by {label}", figure=ratio(samples, peer), bound=bound, most=True, why=why)


def above(samples: Samples, peer: str) -> float:
    """Return the median over the rounds of the product's figure less the peer's."""
    pairs = zip(samples["polos"], samples[peer], strict=True)
    return median(own - other for own, other in pairs)


def missed_of(rows: Iterable[Row]) -> list[tuple[Row, Goal]]:
    """Return the goals that are not met."""
    return [(row, goal) for row in rows for goal in row.goals if not goal.met]
