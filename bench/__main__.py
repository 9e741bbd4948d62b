"""`python -m bench`: measure, print the table, write the results and the plot."""

from __future__ import annotations

import json
import platform
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from importlib.metadata import version
from os import cpu_count
from pathlib import Path
from statistics import median
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from bench import compiled
from bench.page import write_pages
from bench.processes import ROOT, Server
from bench.rows import (
    children,
    latency,
    parked,
    reading,
    replicas,
    standing,
    steps,
    sustained,
    throughput,
)
from bench.table import Row, missed_of
from bench.targets import LABELS, provider

ROWS: dict[str, Callable[[Server, int], Row]] = {
    "sustained": sustained.sustained,
    "cpu": latency.cpu,
    "secure": latency.secure,
    "starts": latency.starts,
    "relay": throughput.relay,
    "relay50": throughput.relay50,
    "growth": throughput.growth,
    "paced": latency.paced,
    "first": latency.first,
    "replay": reading.replay,
    "client": reading.client,
    "fanout": reading.fan_out,
    "idle": reading.idle,
    "stored": standing.stored,
    "import": standing.imports,
    "nats": replicas.relay,
    "nats-paced": replicas.paced,
    "workers": replicas.workers,
    "steps": steps.steps,
    "children": children.children,
    "parked": parked.parked,
    "nats-parked": parked.nats_parked,
}
COMPILED = frozenset(
    {
        "sustained",
        "cpu",
        "secure",
        "starts",
        "relay",
        "relay50",
        "paced",
        "replay",
        "nats",
        "nats-paced",
        "workers",
    }
)
"""Rows that are measured with the programs in Go. The others measure the Python client too."""

VERSIONS = ("grpcio", "protobuf", "openai", "a2a-sdk", "dbos", "fastapi")
RESULTS = Path("bench/results.json")
PLOT = Path("bench/goals.svg")
PAGE = Path("bench/README.md")
USERS_PAGE = Path("docs/performance.md")


def main(
    only: Annotated[str, typer.Option(help="Rows to measure, by name, with commas.")] = "",
    rounds: Annotated[int, typer.Option(min=1, help="How often each is measured.")] = 3,
) -> None:
    """Measure the product and its peers alternately."""
    console = Console(width=150)
    names = only.split(",") if only else list(ROWS)
    if left_out := [] if compiled.built() else [name for name in names if name in COMPILED]:
        console.print(
            f"Left out, because {compiled.BIN} is empty: {', '.join(left_out)}. "
            "Install Go (https://go.dev/dl) and run `make bench`, which builds the programs.",
            style="red",
        )
    measured = []
    for name in names:
        if name in left_out:
            continue
        begun = time.monotonic()
        with compiled.provider() if name in COMPILED else provider() as upstream:
            row = replace(ROWS[name](upstream, rounds), date=datetime.now(UTC).date().isoformat())
        measured.append(row)
        console.print(*tables_of(row))
        console.print(f"{time.monotonic() - begun:.0f} s\n", style="dim")
        write(row)  # a failure of a later row, of a peer for example, loses nothing
    told(console, measured)


def tables_of(row: Row) -> list[Table]:
    """Return a row's figures and goals as a table, and the costs as another if there are any."""
    table = Table("what", f"median, {row.unit}", "goal", "found", "", title=row.title, width=140)
    for name, figures in row.figures.items():
        table.add_row(LABELS[name], f"{median(figures):,.2f}")
    for what, figure in row.notes.items():
        table.add_row(what, f"{figure:,.2f}", style="dim")
    for goal in row.goals:
        table.add_row(goal.text, "", goal.wanted, goal.found, "met" if goal.met else "MISSED")
    if not row.costs:
        return [table]
    costs = Table("CPU per delivered token, µs", "service", "provider", "client", "delivered")
    for name, cost in row.costs.items():
        costs.add_row(LABELS[name], *cost.words, style="dim")
    return [table, costs]


def told(console: Console, rows: list[Row]) -> None:
    """Say which goals are met, and what keeps the others from it."""
    goals = sum(len(row.goals) for row in rows)
    missed = missed_of(rows)
    console.print(f"{goals - len(missed)} of {goals} goals are met.")
    for row, goal in missed:
        line = f"missed: {row.name} {goal.text}: {goal.found}, goal {goal.wanted}."
        console.print(f"{line} {goal.why}".strip(), style="red")


def write(row: Row) -> None:
    """Put a row in place of the former one in results, plot and pages."""
    from bench.plot import draw  # noqa: PLC0415 - its package is installed for benchmarks only

    former = json.loads((ROOT / RESULTS).read_text())["rows"]
    found = {one["name"]: Row.of(one) for one in former} | {row.name: row}
    rows = [found[name] for name in ROWS if name in found]
    about = {
        "machine": f"{cpu_count()} cores, {platform.machine()}, {platform.system()}",
        "python": platform.python_version(),
        "versions": {name: version(name) for name in VERSIONS},
    }
    text = json.dumps({**about, "rows": [one.written for one in rows]}, indent=1)
    (ROOT / RESULTS).write_text(text + "\n")
    draw(rows, ROOT / PLOT)
    write_pages(ROOT / PAGE, ROOT / USERS_PAGE, rows, about)


if __name__ == "__main__":
    typer.run(main)
