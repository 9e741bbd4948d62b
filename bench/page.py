"""The pages with measured figures: bench/README.md, and docs/performance.md for users."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import Any

from bench.table import Cost, Row, missed_of
from bench.targets import LABELS

EXPECTED = {
    "sustained": "streams at 50 tokens per second of one process, 99% of their tokens within 50 ms",
    "paced": "ms from the provider to the reader (median), with 50 such streams",
    "first": "ms from a start to its first event, on an idle service",
    "relay": "tokens per second of one run, if the model were that fast",
    "relay50": "tokens per second of 50 such runs together",
    "client": "events per second that the Python client reads again from a finished run",
    "fanout": "events per second to 1,000 readers of one run",
    "idle": "KiB of memory for an idle reader",
    "steps": "seconds until a workflow of 10,000 steps continues after a kill",
    "children": "ms for each of 1,000 agents that a workflow runs at once",
    "parked": "% of a core for 100,000 runs that wait",
}
"""Rows that tell users what to expect, with what the product's figure in them is."""

BESIDE = {
    "sustained": "streams at 50 tokens per second",
    "relay": "one fast run",
    "relay50": "50 fast runs",
}
"""Rows that tell users how the product compares, with their heads."""

PEERS = {
    "plain": "a relay over gRPC, from the usual packages",
    "careful": "a relay over gRPC, written for speed",
    "sse": "FastAPI, server-sent events",
    "a2a": "a2a-sdk, in memory",
    "a2a-sqlite": "a2a-sdk, SQLite",
    "dbos": "DBOS, SQLite",
    "langgraph": "LangGraph, development server",
}
"""Peers that users may know, by name."""


SHORT_RUNS = "polos at 2000 tokens"
"""The note with the product's figure beside peers that are measured with short runs only."""

AT_SHORT_RUNS = {"a2a", "a2a-sqlite", "dbos", "langgraph"}
"""These peers."""


def write(path: Path, part: str, lines: list[str]) -> None:
    """Put lines between the two marks of a part of a page."""
    begin, end = f"<!-- {part}: written by make bench -->\n", f"\n<!-- end of {part} -->"
    text = path.read_text()
    before, _, rest = text.partition(begin)
    _, _, after = rest.partition(end.lstrip("\n"))
    path.write_text("\n".join([before + begin, *lines, end + after]))


def write_pages(goals: Path, users: Path, rows: list[Row], about: dict[str, Any]) -> None:
    """Put the figures into the page with the goals, and into that for users."""
    write(goals, "measured", lines(rows, about))
    named = {row.name: row for row in rows}
    write(users, "expect", expected(named, about))
    write(users, "beside", list(beside(named)))


def expected(rows: dict[str, Row], about: dict[str, Any]) -> list[str]:
    """Return what users may expect, as a table."""
    told = [
        f"| {rounded(median(rows[name].figures['polos']))} | {what} |"
        for name, what in EXPECTED.items()
        if name in rows
    ]
    machine = f"On {about['machine']}, shared with the provider and the readers"
    return [f"{machine}:", "", "| figure | of what |", "| ---: | --- |", *told]


def rounded(figure: float) -> str:
    """Return the figure with two significant digits."""
    return f"{float(f'{figure:.2g}'):,g}"


def beside(rows: dict[str, Row]) -> Iterator[str]:
    """Yield how many times a peer's figure that of the product is, as a table."""
    found = {head: rows[name] for name, head in BESIDE.items() if name in rows}
    yield "| | " + " | ".join(found) + " |"
    yield "| --- |" + " ---: |" * len(found)
    for peer, label in PEERS.items():
        yield f"| {label} | " + " | ".join(times(row, peer) for row in found.values()) + " |"


def times(row: Row, peer: str) -> str:
    """Return how many times the peer's figure that of the product is; "-" if not measured."""
    if peer not in row.figures:
        return "-"
    own = row.notes.get(SHORT_RUNS) if peer in AT_SHORT_RUNS else None
    told = {goal.text: goal.figure for goal in row.goals} | row.notes
    ratio = told.get(f"by {LABELS[peer]}") or (
        (own or median(row.figures["polos"])) / median(row.figures[peer])
    )
    return f"{ratio:,.0f} x" if ratio >= 10 else f"{ratio:.1f} x"


def lines(rows: list[Row], about: dict[str, Any]) -> list[str]:
    """Return the lines of the measured part."""
    versions = ", ".join(f"{name} {number}" for name, number in about["versions"].items())
    goals = [goal_line(row, goal) for row in rows for goal in row.goals]
    figures = [figure_line(row) for row in rows]
    costs = [cost_line(row, name, cost) for row in rows for name, cost in row.costs.items()]
    return [
        "![Ratios and goals](goals.svg)",
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
