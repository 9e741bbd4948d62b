"""How many tokens a second pass through a server when the provider holds nothing back."""

from __future__ import annotations

from statistics import median

from bench.compiled import Measured, costs, left_out, measured, samples_of
from bench.processes import Server, load
from bench.table import Goal, Row, Samples, at_least
from bench.targets import target

LONG, SHORT, MANY, EACH = 20_000, 2_000, 50, 1_000
"""Tokens of one run beside the flat peers and beside those that slow down; runs, tokens each."""

MACHINE = (
    "Not known. Measurements on different days found 26 to 36 times the relay's rate for one run: "
    "the figures of both vary with the machine, and not by the same factor."
)
"""Why the goal by a plain relay is missed."""

GROWN, WINDOW = 100_000, 5_000


def relay(upstream: Server, rounds: int) -> Row:
    """Relay one run."""
    long_runs = relayed(upstream, rounds, ("polos", "plain", "careful", "sse"), 1, LONG)
    names = ("polos", "a2a", "a2a-sqlite", "dbos", "langgraph")
    short_runs = relayed(upstream, rounds, names, 1, SHORT)
    flat, short = rates(long_runs), rates(short_runs)
    goals = [at_least(flat, "plain", 36, MACHINE), at_least(flat, "sse", 10)]
    bounds = {"a2a": 25, "a2a-sqlite": 200}
    goals += [at_least(short, peer, bound) for peer, bound in bounds.items() if peer in short]
    return Row(
        name="relay",
        title=f"relay, 1 run of {LONG:,} tokens ((d), (f), (g): {SHORT:,})",
        unit="tokens/s",
        figures=short | flat,
        goals=goals,
        notes={f"polos at {SHORT} tokens": median(short["polos"])} | left_out(names, short),
        costs=costs(short_runs | long_runs),
    )


def relay50(upstream: Server, rounds: int) -> Row:
    """Relay many runs at once."""
    names = ("polos", "plain", "careful", "sse", "a2a")
    found = relayed(upstream, rounds, names, MANY, EACH)
    samples = rates(found)
    bounds = {"plain": 20, "sse": 8, "a2a": 20}
    return Row(
        name="relay50",
        title=f"relay, {MANY} runs at once, {EACH} tokens each",
        unit="tokens/s",
        figures=samples,
        goals=[
            at_least(samples, peer, bound, MACHINE)
            for peer, bound in bounds.items()
            if peer in samples
        ],
        notes=left_out(names, samples),
        costs=costs(found),
    )


def relayed(
    upstream: Server, rounds: int, names: tuple[str, ...], runs: int, tokens: int
) -> dict[str, list[Measured]]:
    """Relay so many runs at once with each target."""
    return measured("relay", upstream, rounds, names, runs=runs, tokens=tokens)


def rates(found: dict[str, list[Measured]]) -> Samples:
    """Return tokens a second by target."""
    return samples_of(found, "tokens_per_second")


def growth(upstream: Server, rounds: int) -> Row:
    """Compare the end of a long run with its beginning."""
    first, last = [], []
    for _ in range(rounds):
        with target("polos", upstream) as server:
            found = load("growth", address=server.address, tokens=GROWN, window=WINDOW)
        first.append(found["first"])
        last.append(found["last"])
    change = median(end / begin for begin, end in zip(first, last, strict=True))
    text = f"last {WINDOW:,} of {GROWN:,} tokens, by tokens 1,000 to {WINDOW + 1000:,}"
    return Row(
        name="growth",
        title="relay as a run grows",
        unit="tokens/s",
        figures={"polos": last},
        goals=[Goal(text=text, figure=change, bound=0.9)],
        notes={"at the beginning": median(first)},
    )
