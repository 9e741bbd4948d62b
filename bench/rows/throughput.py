"""How many tokens a second pass through a server when the provider holds nothing back."""

from __future__ import annotations

from statistics import median

from bench.processes import Server, load
from bench.table import Goal, Row, Samples, at_least, rounds_of
from bench.targets import target

LONG, SHORT, MANY, EACH = 20_000, 2_000, 50, 1_000
"""Tokens of one run beside the flat peers and beside those that slow down; runs, tokens each."""

GROWN, WINDOW = 100_000, 5_000


def relay(upstream: Server, rounds: int) -> Row:
    """Relay one run."""
    flat = relayed(upstream, rounds, ("polos", "plain", "careful", "sse"), 1, LONG)
    short = relayed(upstream, rounds, ("polos", "a2a", "a2a-sqlite"), 1, SHORT)
    goals = [at_least(flat, "plain", 15), at_least(flat, "sse", 10)]
    goals += [at_least(short, "a2a", 25), at_least(short, "a2a-sqlite", 200)]
    return Row(
        name="relay",
        title=f"relay, 1 run of {LONG:,} tokens (a2a-sdk: {SHORT:,})",
        unit="tokens/s",
        figures=short | flat,
        goals=goals,
        notes={f"polos at {SHORT} tokens": median(short["polos"])},
    )


def relay50(upstream: Server, rounds: int) -> Row:
    """Relay many runs at once."""
    names = ("polos", "plain", "careful", "sse", "a2a")
    samples = relayed(upstream, rounds, names, MANY, EACH)
    bounds = {"plain": 10, "sse": 8, "a2a": 20}
    return Row(
        name="relay50",
        title=f"relay, {MANY} runs at once, {EACH} tokens each",
        unit="tokens/s",
        figures=samples,
        goals=[at_least(samples, peer, bound) for peer, bound in bounds.items()],
    )


def relayed(
    upstream: Server, rounds: int, names: tuple[str, ...], runs: int, tokens: int
) -> Samples:
    """Return tokens a second by target."""

    def measure(name: str) -> float:
        with target(name, upstream) as server:
            found = load("relay", name=name, address=server.address, runs=runs, tokens=tokens)
        return float(found["tokens_per_second"])

    return rounds_of(rounds, names, measure)


def growth(upstream: Server, rounds: int) -> Row:
    """Compare the end of a long run with its beginning."""
    first, last = [], []
    for _ in range(rounds):
        with target("polos", upstream) as server:
            found = load(
                "growth", name="polos", address=server.address, tokens=GROWN, window=WINDOW
            )
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
