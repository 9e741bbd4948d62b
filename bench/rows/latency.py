"""How long a token takes from the provider to the client, and what it costs on the way."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from statistics import median

from bench.processes import Server, load
from bench.table import Goal, Row, Samples
from bench.targets import target

RUNS, RATE, SECONDS = 50, 50, 4.0

BLOCKS = (
    "A commit writes whole blocks of 4 KiB, first to the write-ahead log and later to the file, "
    "and contains the two or three tokens that arrived during the previous commit. Waiting 2 ms "
    "for more tokens, as an experiment, reduced the bytes written by a third and delayed each "
    "token by 1.7 ms."
)


def paced(upstream: Server, rounds: int) -> Row:
    """Pass fifty answers of fifty tokens a second."""
    middle, tail = passed(upstream, rounds, ("polos", "plain", "careful", "sse", "a2a"))
    plus = {
        name: median(
            own - other for own, other in zip(figures["polos"], figures["plain"], strict=True)
        )
        for name, figures in (("p50", middle), ("p99", tail))
    }
    return Row(
        name="paced",
        title=f"paced, {RUNS} runs x {RATE} tokens/s: provider to client, p50",
        unit="ms",
        figures=middle,
        goals=[
            Goal(text="p50 above (b)", figure=plus["p50"], bound=2, most=True, unit="ms"),
            Goal(text="p99 above (b)", figure=plus["p99"], bound=10, most=True, unit="ms"),
        ],
        notes={f"p99 of {name}": median(figures) for name, figures in tail.items()},
    )


def passed(upstream: Server, rounds: int, names: Iterable[str]) -> tuple[Samples, Samples]:
    """Return median and 99th percentile of the milliseconds, by target."""
    middle: Samples = defaultdict(list)
    tail: Samples = defaultdict(list)
    for _ in range(rounds):
        for name in names:
            with target(name, upstream) as server:
                found = load(
                    "paced",
                    name=name,
                    address=server.address,
                    runs=RUNS,
                    rate=RATE,
                    seconds=SECONDS,
                )
            middle[name].append(found["p50_ms"])
            tail[name].append(found["p99_ms"])
    return dict(middle), dict(tail)


def written(upstream: Server, rounds: int) -> Row:
    """Count what the service writes to the disk for a token, while runs are paced."""
    figures = []
    for _ in range(rounds):
        with target("polos", upstream) as server:
            before = server.written
            found = load(
                "paced", name="polos", address=server.address, runs=RUNS, rate=RATE, seconds=SECONDS
            )
            figures.append((server.written - before) / 1024 / found["passed"])
    goal = Goal(
        text="by /proc/PID/io", figure=median(figures), bound=1, most=True, unit="KiB", why=BLOCKS
    )
    return Row(
        name="written",
        title=f"bytes written to disk per token, {RUNS} runs x {RATE} tokens/s",
        unit="KiB",
        figures={"polos": figures},
        goals=[goal],
    )


def first(upstream: Server, rounds: int) -> Row:
    """Time the first event after `StreamRun`, with nothing else going on."""
    figures = []
    for _ in range(rounds):
        with target("polos", upstream) as server:
            figures.append(load("first_event", address=server.address, runs=200)["p50_ms"])
    goal = Goal(text="p50", figure=median(figures), bound=5, most=True, unit="ms")
    return Row(
        name="first",
        title="first event after StreamRun, idle service, p50",
        unit="ms",
        figures={"polos": figures},
        goals=[goal],
    )
