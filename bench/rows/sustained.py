"""How many runs at 50 tokens a second a server carries before its readers notice."""

from __future__ import annotations

from collections.abc import Callable

from bench.processes import Server, load
from bench.table import Row, at_least, rounds_of
from bench.targets import target

RATE, SECONDS = 50, 2.5
BOUND_MS = 50.0
"""Time from provider to client that 99 of 100 tokens keep."""

FULL = 0.97
"""Share of the tokens due that must have arrived: a provider that starves sends less."""

WHY = (
    "One process uses one core, and a token that arrives alone costs a socket read, a frame, a "
    "wake-up and a gRPC message: about 100 µs here, as much as (c) needs to store nothing. Three "
    "times the runs of (c) would leave 37 µs per token, and reading and parsing the token from the "
    "provider alone takes about 50 µs. Tokens that share a message cost less, but arrive later "
    "than the bound allows."
)

START = {"polos": 128, "plain": 48, "careful": 96, "sse": 48, "a2a": 16}
PRECISION = 1.08


def sustained(upstream: Server, rounds: int) -> Row:
    """Search for the number of runs at which the bound is just kept."""

    def measure(name: str) -> float:
        return largest(START[name], lambda runs: kept(upstream, name, runs))

    samples = rounds_of(rounds, START, measure)
    bounds = {"plain": 6, "careful": 3, "sse": 5, "a2a": 12}
    return Row(
        name="sustained",
        title=f"sustained: runs at {RATE} tokens/s with p99 ≤ {BOUND_MS:g} ms",
        unit="runs",
        figures=samples,
        goals=[at_least(samples, peer, bound, WHY) for peer, bound in bounds.items()],
    )


def kept(upstream: Server, name: str, runs: int) -> bool:
    """Whether so many runs keep the bound."""
    with target(name, upstream) as server:
        found = load(
            "paced", name=name, address=server.address, runs=runs, rate=RATE, seconds=SECONDS
        )
    return bool(found["p99_ms"] <= BOUND_MS and found["read"] >= FULL)


def largest(start: int, holds: Callable[[int], bool]) -> int:
    """Return the greatest number, to PRECISION, for which `holds`."""
    low, high = 1, start
    while holds(high):
        low, high = high, high * 2
    if low == 1:
        low = high // 2
        while low > 1 and not holds(low):
            low, high = low // 2, low
    while high / low > PRECISION and high - low > 1:
        middle = round((low * high) ** 0.5)
        low, high = (middle, high) if holds(middle) else (low, middle)
    return low
