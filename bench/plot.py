"""A plot of the ratios, for the documentation."""

from __future__ import annotations

from pathlib import Path

import matplotlib as mpl
from matplotlib import pyplot as plt
from matplotlib.axes import Axes

from bench.table import Goal, Row

GOOD, MISSED, BOUND = "#1b7f5c", "#c0392b", "#333333"


def draw(rows: list[Row], path: Path) -> None:
    """Draw each goal that is a ratio: a bar for what was measured, a tick for the bound."""
    goals = [(row, goal) for row in rows for goal in row.goals if goal.unit == "x"]
    if not goals:
        return
    # The same figures make the same file.
    mpl.rcParams["svg.hashsalt"] = "polos"
    figure, axes = plt.subplots(figsize=(9, 0.42 * len(goals) + 1.2), layout="constrained")
    places = range(len(goals))[::-1]
    for place, (_, goal) in zip(places, goals, strict=True):
        bar(axes, place, goal)
    axes.set_yticks(list(places), [f"{row.name} {goal.text}" for row, goal in goals])
    axes.set_xscale("log")
    axes.set_xlabel("times the peer (bar) and the goal (tick)")
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)


def bar(axes: Axes, place: int, goal: Goal) -> None:
    """Draw one goal."""
    axes.barh(place, goal.figure, height=0.6, color=GOOD if goal.met else MISSED)
    axes.plot([goal.bound] * 2, [place - 0.42, place + 0.42], color=BOUND, linewidth=2)
    axes.annotate(f" {goal.figure:.3g}", (goal.figure, place), va="center", fontsize=8, color=BOUND)
