"""How long a token takes from the provider to the client, and what it costs on the way."""

from __future__ import annotations

from statistics import median

from bench.compiled import Measured, costs, measured, samples_of
from bench.processes import Server, load
from bench.table import LOOP, Goal, Row, above, at_most, ratio
from bench.targets import target

RUNS, RATE, SECONDS = 50, 50, 4.0
"""Of a paced load: runs at the same time, tokens a second of each, seconds that are measured."""

COST_RUNS, START_RUNS = 100, 300
"""Runs of a paced load whose CPU time is compared, and runs that start at once."""


def paced(upstream: Server, rounds: int) -> Row:
    """Pass fifty answers of fifty tokens a second."""
    names = ("polos", "plain", "careful", "floor", "sse", "a2a")
    found = measured("paced", upstream, rounds, names, **load_of(RUNS))
    middle, tail = samples_of(found, "p50_ms"), samples_of(found, "p99_ms")
    written = median(one["written_bytes"] for one in found["polos"]) / 1024
    return Row(
        name="paced",
        title=f"paced, {RUNS} runs x {RATE} tokens/s: provider to client, p50",
        unit="ms",
        figures=middle,
        goals=[
            Goal(
                text="p50 above (c)",
                figure=above(middle, "careful"),
                bound=1.5,
                most=True,
                unit="ms",
                why="At this rate commits are 1.25 ms apart, so that each carries several tokens. "
                "That saves CPU, and with it runs, and bytes on disk; it delays a token.",
            ),
            Goal(
                text="p99 above (c)", figure=above(tail, "careful"), bound=5, most=True, unit="ms"
            ),
            Goal(text="written to disk per token", figure=written, bound=3, most=True, unit="KiB"),
        ],
        notes=tails(found),
        costs=costs(found),
    )


def load_of(runs: int) -> Measured:
    """Return the options of a paced load."""
    return {"runs": runs, "rate": RATE, "seconds": f"{SECONDS:g}s"}


def tails(found: dict[str, list[Measured]]) -> dict[str, float]:
    """Return the medians of the 99th percentiles, in ms, as notes."""
    return {
        f"p99 of {name}": median(figures) for name, figures in samples_of(found, "p99_ms").items()
    }


def cpu(upstream: Server, rounds: int) -> Row:
    """Compare the CPU time that a token takes, beside a relay that stores nothing and the floor."""
    names = ("polos", "careful", "floor")
    found = measured("paced", upstream, rounds, names, **load_of(COST_RUNS))
    figures = samples_of(found, "service_us")
    return Row(
        name="cpu",
        title=f"CPU of the service per delivered token, {COST_RUNS} runs x {RATE} tokens/s",
        unit="µs",
        figures=figures,
        goals=[at_most(figures, "careful", 0.7, LOOP), at_most(figures, "floor", 1.4, LOOP)],
        notes=tails(found),
        costs=costs(found),
    )


def secure(upstream: Server, rounds: int) -> Row:
    """Compare the CPU time that a token takes with TLS and a key, and without."""
    names = ("polos", "secure")
    found = measured("paced", upstream, rounds, names, **load_of(RUNS))
    relayed = measured("relay", upstream, rounds, names, runs=RUNS, tokens=1_000)
    figures = samples_of(found, "service_us")
    goals = [
        Goal(
            text=f"{what}, by that of polos serve without",
            figure=ratio(samples_of(one, "service_us"), "polos", "secure"),
            bound=1.1,
            most=True,
        )
        for what, one in (("paced", found), ("unthrottled", relayed))
    ]
    return Row(
        name="secure",
        title=f"CPU of the service per delivered token with TLS and a key, {RUNS} runs",
        unit="µs",
        figures=figures,
        goals=goals,
        notes=tails(found),
        costs=costs(found),
    )


def starts(upstream: Server, rounds: int) -> Row:
    """Start many runs at once, and measure each from its first token on."""
    found = measured("starts", upstream, rounds, ("polos", "careful"), **load_of(START_RUNS))
    shares = {
        name: [100 * share for share in all_rounds]
        for name, all_rounds in samples_of(found, "within_100_ms").items()
    }
    notes = {
        f"first token of {name}, {figure} in ms": median(samples)
        for figure in ("p50", "p99")
        for name, samples in samples_of(found, f"first_token_{figure}_ms").items()
    }
    return Row(
        name="starts",
        title=f"{START_RUNS} runs that start at once: tokens delivered within 100 ms",
        unit="%",
        figures=shares,
        goals=[
            Goal(
                text="of those due",
                figure=median(shares["polos"]),
                bound=97,
                unit="%",
                why=LOOP + f" {START_RUNS} runs are due {START_RUNS * RATE:,} tokens a second: "
                "about three times what the thread carries.",
            )
        ],
        notes=notes,
        costs=costs(found),
    )


def first(upstream: Server, rounds: int) -> Row:
    """Time the first event after `StreamRun`, with nothing else going on."""
    figures = []
    for _ in range(rounds):
        with target("polos", upstream) as server:
            figures.append(load("first_event", address=server.address, runs=200)["p50_ms"])
    goal = Goal(
        text="p50",
        figure=median(figures),
        bound=5,
        most=True,
        unit="ms",
        why="The machine: the service as it was when it took 3.3 ms here (2026-11-22) took 12 to "
        "14 ms in the same hour.",
    )
    return Row(
        name="first",
        title="first event after StreamRun, idle service, p50",
        unit="ms",
        figures={"polos": figures},
        goals=[goal],
    )
