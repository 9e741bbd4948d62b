"""The measured part of docs/performance.md, between its two marks."""

from __future__ import annotations

from pathlib import Path
from statistics import median
from typing import Any

from bench.table import Cost, Row, missed_of
from bench.targets import LABELS

BEGIN, END = "<!-- measured: written by make bench -->", "<!-- end of what was measured -->"


def write_page(path: Path, rows: list[Row], about: dict[str, Any]) -> None:
    """Put tables of goals and figures between the marks."""
    text = path.read_text()
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    path.write_text("\n".join([before + BEGIN, "", *lines(rows, about), "", END + after]))


def lines(rows: list[Row], about: dict[str, Any]) -> list[str]:
    """Return the lines of the measured part."""
    versions = ", ".join(f"{name} {number}" for name, number in about["versions"].items())
    goals = [goal_line(row, goal) for row in rows for goal in row.goals]
    figures = [figure_line(row) for row in rows]
    costs = [cost_line(row, name, cost) for row in rows for name, cost in row.costs.items()]
    return [
        "![Ratios and goals](performance.svg)",
        "",
        f"{about['machine']}; Python {about['python']}; {versions}. Medians of the rounds.",
        "",
        "| row | what | goal | found | |",
        "| --- | --- | --- | --- | --- |",
        *goals,
        "",
        *reasons(rows),
        "The underlying figures, which are only valid for this machine at that time:",
        "",
        "| row | measured | rounds | figures |",
        "| --- | --- | --- | --- |",
        *figures,
        "",
        "CPU time per delivered token, in µs, and the share of the tokens due that arrived:",
        "",
        "| row | what | service | provider | client | delivered |",
        "| --- | --- | --- | --- | --- | --- |",
        *costs,
    ]


def reasons(rows: list[Row]) -> list[str]:
    """Return why goals are missed, each reason once."""
    known: dict[str, list[str]] = {}
    for row, goal in missed_of(rows):
        known.setdefault(goal.why or "not known", []).append(f"{row.name} {goal.text}")
    told = [f"- {', '.join(goals)}: {why}" for why, goals in known.items()]
    return ["Why some goals are missed:", "", *told, ""] if told else []


def goal_line(row: Row, goal: Any) -> str:
    """Return a goal as a line of a table."""
    told = "met" if goal.met else "**missed**"
    return f"| {row.name} | {goal.text} | {goal.wanted} | {goal.found} | {told} |"


def figure_line(row: Row) -> str:
    """Return a row's figures as a line of a table."""
    told = [f"{LABELS[name]} {median(figures):,.4g}" for name, figures in row.figures.items()]
    told += [f"{what} {figure:,.4g}" for what, figure in row.notes.items()]
    return f"| {row.title}, {row.unit} | {row.date} | {row.rounds} | {'; '.join(told)} |"


def cost_line(row: Row, name: str, cost: Cost) -> str:
    """Return what a token of a target took as a line of a table."""
    return f"| {row.name} | {' | '.join([LABELS[name], *cost.words])} |"
