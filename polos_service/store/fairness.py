"""Fairness between projects: which project's queued run is next.

The next run belongs to the project that holds the fewest runs for its weight. Among equals it
belongs to the project whose last run began longest ago, where time counts as much as the weight
says. Projects that have nothing queued do not take part.

No project waits for ever, whatever its weight: one that holds nothing goes before all that hold
something, and its idle time grows until it exceeds that of the others that hold nothing.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from types import MappingProxyType

DEFAULT_WEIGHT = 1.0
"""The weight of a project without one of its own."""

Weights = Mapping[str, float]
"""Weights of projects. Each one is greater than 0."""

EQUAL: Weights = MappingProxyType({})
"""Every project has the default weight."""


def urgency(
    project: str, weights: Weights, *, held: int, started: int | None, now: int
) -> tuple[float, float]:
    """Return a project's place among those that have runs queued: the least is next.

    Args:
        project: the project.
        weights: the weights of the projects that do not have the default weight.
        held: how many of its runs are held, by all processes.
        started: when its last run began; None if that is not known. Times are nanoseconds since
            the epoch.
        now: the current time.

    """
    weight = weights.get(project, DEFAULT_WEIGHT)
    idle = math.inf if started is None else max(0, now - started)
    return held / weight, -idle * weight
