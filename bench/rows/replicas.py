"""The product on NATS JetStream, one replica and two, beside itself on a file."""

from __future__ import annotations

from statistics import median

from bench.processes import Server
from bench.rows.latency import RATE, RUNS, passed
from bench.rows.throughput import EACH, MANY, relayed
from bench.table import Row, ratio


def relay(upstream: Server, rounds: int) -> Row:
    """Relay many runs at once."""
    samples = relayed(upstream, rounds, ("polos", "nats", "nats-two", "plain"), MANY, EACH)
    for_two = zip(samples["nats-two"], samples["nats"], strict=True)
    return Row(
        name="nats",
        title=f"on NATS JetStream: relay, {MANY} runs at once, {EACH} tokens each",
        unit="tokens/s",
        figures=samples,
        goals=[],
        notes={
            "two replicas, by one": median(two / one for two, one in for_two),
            "one replica, by (b)": ratio(samples, "plain", "nats"),
        },
    )


def paced(upstream: Server, rounds: int) -> Row:
    """Pass fifty answers of fifty tokens a second; read them where they run, and elsewhere."""
    names = ("polos", "nats", "nats-two", "nats-elsewhere")
    middle, tail = passed(upstream, rounds, names)
    return Row(
        name="nats-paced",
        title=f"on NATS JetStream: paced, {RUNS} runs x {RATE} tokens/s: provider to client, p50",
        unit="ms",
        figures=middle,
        goals=[],
        notes={f"p99 of {name}": median(figures) for name, figures in tail.items()},
    )
