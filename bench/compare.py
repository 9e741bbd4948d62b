"""`python -m bench.compare REVISION`: whether the working tree makes a token more expensive.

The services of a revision and of the working tree run side by side and take the same load in
turn, so that what else goes on at the machine hits both. Load and mock provider are the
working tree's. What is compared is the CPU time that the service's process takes for a token.
"""

from __future__ import annotations

import io
import random
import subprocess
import tarfile
import tempfile
from collections.abc import Collection, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median, quantiles
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from bench.processes import ROOT, Server, load, server
from bench.product import serving, settings
from bench.rows.latency import RATE, RUNS
from bench.rows.throughput import LONG
from bench.targets import provider

BOUND = 1.03
"""The ratio, new by old, above which a token has become more expensive."""

WARM_UP = 2_000
"""Tokens that a service passes before it is measured, so that its code is loaded and warm."""

LOADS: dict[str, dict[str, Any]] = {
    "relay": {"runs": 1, "tokens": LONG, "times": 8},
    "paced": {"runs": RUNS, "rate": RATE, "seconds": 2.0},
}
"""By row, the arguments of its load: the rows' own, for as long as a figure needs to be steady."""

RESAMPLES = 2_000
"""How often the rounds are drawn anew to find how far their median spreads."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """The CPU seconds a token of one row, old and new, a figure a round."""

    old: list[float] = field(default_factory=list)
    new: list[float] = field(default_factory=list)

    @property
    def ratios(self) -> list[float]:
        """New by old, of each round."""
        return [new / old for old, new in zip(self.old, self.new, strict=True)]

    @property
    def ratio(self) -> float:
        """The median of the rounds' ratios."""
        return median(self.ratios)

    @property
    def spread(self) -> tuple[float, float]:
        """The bootstrap's 95% interval of the ratio."""
        draw = random.Random(1)  # noqa: S311 - the same figures give the same interval
        medians = [median(draw.choices(self.ratios, k=len(self.old))) for _ in range(RESAMPLES)]
        cuts = quantiles(medians, n=40)
        return cuts[0], cuts[-1]

    @property
    def dearer(self) -> bool:
        """Whether a token has become more expensive."""
        return self.ratio > BOUND


def main(
    revision: Annotated[str, typer.Argument(help="What the working tree is compared with.")],
    times: Annotated[int, typer.Option(min=1, help="How often each is measured.")] = 10,
    rows: Annotated[str, typer.Option(help="Rows to measure, with commas.")] = ",".join(LOADS),
) -> None:
    """Compare the CPU time of a token; exit with 1 if it is more than 3% above the revision's."""
    loads = {name: LOADS[name] for name in rows.split(",") if name in LOADS}
    if len(loads) < len(rows.split(",")):
        raise typer.BadParameter(f"{rows!r} names other rows than {', '.join(LOADS)}")
    commit = commit_of(revision)
    with checked_out(commit) as checkout, provider() as upstream:
        found = compared({"old": checkout, "new": ROOT}, upstream, loads, times)
    Console(width=100).print(table_of(found, commit[:7], times))
    raise typer.Exit(any(one.dearer for one in found.values()))


def commit_of(revision: str) -> str:
    """Return the id of the commit that a revision names."""
    command = ["git", "rev-parse", "--verify", "--end-of-options", f"{revision}^{{commit}}"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)  # noqa: S603
    if done.returncode:
        raise typer.BadParameter(f"git knows no commit {revision!r}: {done.stderr.strip()}")
    return done.stdout.strip()


@contextmanager
def checked_out(commit: str) -> Iterator[Path]:
    """Put the files of a commit into a folder, for as long as the block."""
    command = ["git", "archive", commit]
    files = subprocess.run(command, cwd=ROOT, capture_output=True, check=True).stdout  # noqa: S603
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        with tarfile.open(fileobj=io.BytesIO(files)) as archive:
            archive.extractall(folder, filter="data")
        yield Path(folder).resolve()


def compared(
    checkouts: dict[str, Path], upstream: Server, loads: dict[str, dict[str, Any]], times: int
) -> dict[str, Comparison]:
    """Measure the old and the new service by turns; who is first changes from round to round."""
    found = {row: Comparison() for row in loads}
    for index in range(times):
        order = ("old", "new") if index % 2 == 0 else ("new", "old")
        with ExitStack() as stack:
            services = {
                name: stack.enter_context(service(checkouts[name], upstream)) for name in order
            }
            warm_up(services.values())
            for row, arguments in loads.items():
                for name in order:
                    figure = seconds_per_token(services[name], row, arguments)
                    getattr(found[row], name).append(figure)
    return found


@contextmanager
def service(checkout: Path, upstream: Server) -> Iterator[Server]:
    """Start a checkout's service on an empty store."""
    with tempfile.TemporaryDirectory(prefix="bench-", dir=ROOT / "bench") as folder:
        _, *arguments = serving(f"sqlite://{Path(folder) / 'runs.db'}")
        command = ("bench.revision", str(checkout), *arguments)
        with server(*command, **settings(upstream)) as started:
            yield started


def warm_up(services: Collection[Server]) -> None:
    """Let each service pass an answer; the load takes the addresses in turn."""
    addresses = ",".join(one.address for one in services)
    load("relay", address=addresses, runs=len(services), tokens=WARM_UP)


def seconds_per_token(started: Server, row: str, arguments: dict[str, Any]) -> float:
    """Put a row's load on a service; return the CPU seconds that it took for each token."""
    before = started.cpu
    found = load(row, address=started.address, **arguments)
    spent = started.cpu - before
    if found.get("late"):
        raise RuntimeError(
            f"{found['late']} runs of the row {row} did not end in time: the machine is too busy"
        )
    return float(spent / found["passed"])


def table_of(found: dict[str, Comparison], commit: str, times: int) -> Table:
    """Return the figures as a table."""
    table = Table(
        *("row", commit, "working tree", "ratio", "95% of it", f"at most {BOUND:g}"),
        title=f"CPU of the service for a token, µs: medians of {times} rounds",
    )
    for row, one in found.items():
        low, high = one.spread
        table.add_row(
            row,
            *(f"{median(figures) * 1e6:.2f}" for figures in (one.old, one.new)),
            f"{one.ratio:.3f}",
            f"{low:.3f} to {high:.3f}",
            "MORE EXPENSIVE" if one.dearer else "met",
        )
    return table


if __name__ == "__main__":
    typer.run(main)
