"""The product on NATS JetStream, with one process and several, beside itself on a file."""

from __future__ import annotations

from bench.compiled import costs, measured, samples_of
from bench.processes import Server
from bench.rows.latency import RATE, RUNS, load_of, tails
from bench.rows.throughput import EACH, MANY, rates, relayed
from bench.table import Row, at_least, ratio

CONNECTIONS = 16
"""Of the client to an address at which several processes listen. The kernel gives each connection
to one of them; the more connections, the more evenly."""


def relay(upstream: Server, rounds: int) -> Row:
    """Relay many runs at once."""
    found = relayed(upstream, rounds, ("polos", "nats", "nats-two", "plain"), MANY, EACH)
    samples = rates(found)
    return Row(
        name="nats",
        title=f"on NATS JetStream: relay, {MANY} runs at once, {EACH} tokens each",
        unit="tokens/s",
        figures=samples,
        goals=[],
        notes={
            "two replicas, by one": ratio(samples, "nats", "nats-two"),
            "one replica, by (b)": ratio(samples, "plain", "nats"),
        },
        costs=costs(found),
    )


def workers(upstream: Server, rounds: int) -> Row:
    """Relay many runs at once with one process and with two on one address."""
    names = ("nats", "nats-workers")
    options = {"runs": MANY, "tokens": 4 * EACH, "connections": CONNECTIONS}
    found = measured("relay", upstream, rounds, names, **options)
    samples = rates(found)
    return Row(
        name="workers",
        title=f"on NATS JetStream: relay, {MANY} runs at once, one process and two",
        unit="tokens/s",
        figures=samples,
        goals=[at_least(samples, "nats", 1.3, name="nats-workers")],
        costs=costs(found),
    )


def paced(upstream: Server, rounds: int) -> Row:
    """Pass fifty answers of fifty tokens a second; read them where they run, and elsewhere."""
    names = ("polos", "nats", "nats-two", "nats-elsewhere")
    found = measured("paced", upstream, rounds, names, **load_of(RUNS))
    return Row(
        name="nats-paced",
        title=f"on NATS JetStream: paced, {RUNS} runs x {RATE} tokens/s: provider to client, p50",
        unit="ms",
        figures=samples_of(found, "p50_ms"),
        goals=[],
        notes=tails(found),
        costs=costs(found),
    )
