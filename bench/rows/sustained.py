"""How many runs at 50 tokens a second a server carries before its readers notice."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from math import ceil, floor

from bench.compiled import Measured, costs, measured
from bench.processes import Server
from bench.table import LOOP, Row, at_least, ratio, rounds_of
from bench.targets import LABELS

RATE, SECONDS = 50, "4s"
BOUND_MS = 50.0
"""Time from provider to client that 99 of 100 tokens keep."""

FULL = 0.97
"""Share of the tokens due that must have arrived: a provider that starves sends less."""

START = {
    "polos": 200,
    "plain": 48,
    "careful": 96,
    "sse": 56,
    "a2a": 8,
    "dbos": 2,
    "langgraph": 14,
}
"""By target, about what it carried when it was last measured: the search begins there."""

GOALS = {"plain": 5.0, "careful": 2.5}
"""By peer, how many times its runs the product is to carry."""

OTHERS = [name for name in START if name != "polos" and name not in GOALS]
"""Peers that are measured without a goal."""

PRECISION = 1.08
"""The search ends when what holds and what does not are this close."""

STEP = 1.25
"""The search's first step away from where it begins; each further one is the square."""


def sustained(upstream: Server, rounds: int) -> Row:
    """Search for the number of runs at which the bound is just kept."""
    starts = dict(START)
    best: dict[str, list[Measured]] = defaultdict(list)

    def measure(name: str) -> float:
        found: dict[int, Measured] = {}

        def holds(runs: int) -> bool:
            found[runs] = passed(upstream, name, runs)
            return kept(found[runs])

        starts[name] = largest(starts[name], holds)
        if starts[name] in found:
            best[name].append(found[starts[name]])
        return starts[name]

    samples = rounds_of(rounds, START, measure)
    return Row(
        name="sustained",
        title=f"sustained: runs at {RATE} tokens/s with p99 ≤ {BOUND_MS:g} ms",
        unit="runs",
        figures=samples,
        goals=[at_least(samples, peer, bound, LOOP) for peer, bound in GOALS.items()],
        notes={f"by {LABELS[name]}": ratio(samples, name) for name in OTHERS},
        costs=costs(best),
    )


def passed(upstream: Server, name: str, runs: int) -> Measured:
    """Return what is measured with so many runs."""
    found = measured("paced", upstream, 1, [name], runs=runs, rate=RATE, seconds=SECONDS)
    return found[name][0]


def kept(found: Measured) -> bool:
    """Whether readers notice nothing."""
    return bool(0 <= found["p99_ms"] <= BOUND_MS and found["delivered"] >= FULL)


def largest(start: int, holds: Callable[[int], bool]) -> int:
    """Return the greatest number for which `holds`, to PRECISION; 1 if there is none.

    It steps away from where it begins, faster and faster, until the number is between two, and
    then takes their geometric mean.
    """
    step = STEP
    if holds(start):
        low, high = start, next_above(start, step)
        while holds(high):
            step **= 2
            low, high = high, next_above(high, step)
    else:
        low, high = next_below(start, step), start
        while low > 1 and not holds(low):
            step **= 2
            low, high = next_below(low, step), low
    while high / low > PRECISION and high - low > 1:
        middle = round((low * high) ** 0.5)
        low, high = (middle, high) if holds(middle) else (low, middle)
    return low


def next_above(number: int, step: float) -> int:
    """Return a greater number."""
    return max(number + 1, ceil(number * step))


def next_below(number: int, step: float) -> int:
    """Return a smaller number, at least 1."""
    return max(1, min(number - 1, floor(number / step)))
