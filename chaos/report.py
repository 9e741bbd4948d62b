"""What a campaign comes to, in figures and lines."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from chaos.base import Result, Tally
from chaos.places import WHAT, Place

LAST_LINES = 40
"""Lines of the service's output that are shown with a finding."""


@dataclass(slots=True)
class Total(Tally):
    """The sum over rounds.

    Attributes:
        told: the findings as they are printed, with what the service printed and the command
            that plays their round again.

    """

    rounds: int = 0
    told: list[str] = field(default_factory=list)

    def add(self, again: str, result: Result) -> None:
        """Add a round; its findings say with which command it is played again."""
        self.rounds += 1
        self.runs += result.runs
        self.trials += result.trials
        self.events += result.events
        self.faults += result.faults
        self.hits += result.hits
        if result.findings:
            tail = result.output.splitlines()[-LAST_LINES:]
            self.findings += result.findings
            self.told += [*result.findings, *(f"    | {line}" for line in tail), f"  {again}"]

    def line(self, number: int, result: Result) -> str:
        """Return how far it has come, and what this round found."""
        come = f"round {number}: {self.trials} trials, {len(result.findings)} findings"
        return "\n  ".join([come, *result.findings])


def table(total: Total, places: Sequence[Place], seed: int, seconds: float) -> str:
    """Return seed, figures and faults by place."""
    size = f"{total.runs} runs, {total.events} events, {total.rounds} rounds"
    lines = [
        f"seed {seed}: {total.trials} trials ({size}) in {seconds:.0f} s",
        "",
        f"{'place':16} {'faults':>7} {'runs met':>9}",
        *(
            f"{place:16} {total.faults[place]:7} {total.hits[place]:9}  {WHAT[place]}"
            for place in places
        ),
    ]
    return "\n".join([*lines, ""])


def findings(total: Total) -> str:
    """Return what was found."""
    return "\n".join([*total.told, f"{len(total.findings)} findings"])
