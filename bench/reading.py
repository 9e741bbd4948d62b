"""`python -m bench.reading REVISION`: whether the working tree reads a token at a higher price.

Reading alone: the bytes of a mock provider, over a socket, until the text of a token is there,
which is dropped. A process with the providers of a revision and one with those of the working
tree read the same answers by turns, so that what else goes on at the machine hits both.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from bench.compare import BOUND, Comparison, checked_out, commit_of
from bench.processes import ROOT, environment
from bench.targets import provider

WARM_UP = 2_000
"""Tokens that a process reads of each answer before it is measured."""

ALONE = 10
"""How many times fewer tokens an answer has whose tokens come one at a time."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What is read in a row.

    Attributes:
        title: what it is.
        provider: who is asked.
        api: by which API; None is the provider's default.
        path: of the base URL; the mock provider knows by it what to send.
        rate: tokens a second; 0 is as fast as they are read.
        new: whether it is compared with `chat`: earlier revisions cannot read it.

    """

    title: str
    provider: str = "openai"
    api: str | None = None
    path: str = "/v1"
    rate: int = 0
    new: bool = False


ROWS = {
    "chat": Answer("chat completions"),
    "alone": Answer("chat completions, each token alone", rate=4_000),
    "usage": Answer("chat completions, usage in each chunk", path="/usage/v1"),
    "reasoning": Answer("chat completions, reasoning", path="/reasoning/v1"),
    "responses": Answer("Responses API", api="responses", new=True),
    "anthropic": Answer("Anthropic", provider="anthropic", new=True),
}
"""By name. The last ones are compared with `chat` of the working tree."""


@dataclass(slots=True)
class Found:
    """What was found.

    Attributes:
        rows: by row; a row that only the working tree can read is compared with its `chat`.
        lacking: by row, what the working tree has not.

    """

    rows: dict[str, Comparison] = field(default_factory=dict)
    lacking: dict[str, str] = field(default_factory=dict)


class Process:
    """A process that reads answers."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def read(self, answer: Answer, tokens: int) -> dict[str, Any]:
        """Read an answer; return the `{"seconds"}` that a token took, or what it `{"lacks"}`."""
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None
        assert stdout is not None
        wanted = {name: getattr(answer, name) for name in ("provider", "api", "path", "rate")}
        wanted["tokens"] = max(1, tokens // ALONE) if answer.rate else tokens
        stdin.write(json.dumps(wanted) + "\n")
        stdin.flush()
        found: dict[str, Any] = json.loads(stdout.readline())
        return found


@contextmanager
def reading(checkout: Path, address: str) -> Iterator[Process]:
    """Start a process with the providers of a checkout."""
    with subprocess.Popen(  # noqa: S603 - a module of this package
        [sys.executable, "-m", "bench.asked", str(checkout), address],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env=environment(),
    ) as process:
        try:
            yield Process(process)
        finally:
            process.kill()


def measured(old: Process, new: Process, times: int, tokens: int) -> Found:
    """Read each answer by turns; who is first changes from round to round."""
    found = Found()
    for row, answer in ROWS.items():
        if lacks := new.read(answer, min(tokens, WARM_UP)).get("lacks"):
            found.lacking[row] = lacks
            continue
        base = ROWS["chat"] if answer.new else answer
        sides = [("old", new if answer.new else old, base), ("new", new, answer)]
        for _, process, read in sides:
            process.read(read, min(tokens, WARM_UP))
        found.rows[row] = Comparison()
        for index in range(times):
            for name, process, read in sides if index % 2 == 0 else sides[::-1]:
                getattr(found.rows[row], name).append(process.read(read, tokens)["seconds"])
    return found


def table_of(found: Found, commit: str, times: int) -> Table:
    """Return the figures as a table."""
    table = Table(
        *("what is read", commit, "working tree", "ratio", "95% of it", f"at most {BOUND:g}"),
        title=f"CPU of reading a token, µs: medians of {times} rounds",
    )
    for row, one in found.rows.items():
        low, high = one.spread
        table.add_row(
            ROWS[row].title,
            "" if ROWS[row].new else f"{median(one.old) * 1e6:.2f}",
            f"{median(one.new) * 1e6:.2f}",
            f"{one.ratio:.3f}",
            f"{low:.3f} to {high:.3f}",
            "by chat completions" if ROWS[row].new else "MORE EXPENSIVE" if one.dearer else "met",
        )
    for row, what in found.lacking.items():
        table.add_row(ROWS[row].title, "", f"skipped: {what}")
    return table


def main(
    revision: Annotated[str, typer.Argument(help="What the working tree is compared with.")],
    times: Annotated[int, typer.Option(min=2, help="How often each answer is read.")] = 20,
    tokens: Annotated[int, typer.Option(min=1, help="Tokens of an answer.")] = 20_000,
) -> None:
    """Compare the CPU time of reading; exit with 1 if it is more than 3% above the revision's."""
    commit = commit_of(revision)
    with (
        checked_out(commit) as checkout,
        provider() as upstream,
        reading(checkout, upstream.address) as old,
        reading(ROOT, upstream.address) as new,
    ):
        found = measured(old, new, times, tokens)
    Console(width=120).print(table_of(found, commit[:7], times))
    dearer = [row for row, one in found.rows.items() if not ROWS[row].new and one.dearer]
    raise typer.Exit(bool(dearer))


if __name__ == "__main__":
    typer.run(main)
