"""What readers cost: of a finished run, of one that is under way, of one that is silent."""

from __future__ import annotations

from collections import defaultdict
from statistics import median

from bench.compiled import measured, samples_of
from bench.processes import Server, load
from bench.table import Goal, Row, Samples, at_least
from bench.targets import target

EVENTS, TIMES, BARE_EVENTS = 100_000, 3, 20_000
READERS, TOKENS = 1000, 1000


def replay(upstream: Server, rounds: int) -> Row:
    """Read a finished run again, beside the floor."""
    floor = measured("relay", upstream, rounds, ["bare"], runs=1, tokens=BARE_EVENTS)
    found = measured("replay", upstream, rounds, ["polos"], tokens=EVENTS)
    samples = samples_of(floor, "tokens_per_second") | samples_of(found, "events_per_second")
    return Row(
        name="replay",
        title=f"replay of a finished run of {EVENTS:,} events",
        unit="events/s",
        figures=samples,
        goals=[at_least(samples, "bare", 60)],
    )


def client(upstream: Server, rounds: int) -> Row:
    """Read a finished run again with the Python client, beside the floor with that of grpc.aio."""
    samples: Samples = defaultdict(list)
    texts = []
    for _ in range(rounds):
        with target("bare", upstream) as server:
            bare = load("bare_rate", address=server.address, tokens=BARE_EVENTS)
        with target("polos", upstream) as server:
            found = load("replay", address=server.address, tokens=EVENTS, times=TIMES)
        samples["bare"].append(bare["events"])
        samples["polos"].append(found["events"])
        texts.append(found["text"])
    times = {
        name: median(a / b for a, b in zip(figures, samples["bare"], strict=True))
        for name, figures in (("events", samples["polos"]), ("text", texts))
    }
    return Row(
        name="client",
        title=f"replay of a finished run of {EVENTS:,} events to the Python client",
        unit="events/s",
        figures=dict(samples),
        goals=[
            Goal(text="iterating Events, by (a)", figure=times["events"], bound=25),
            Goal(text="text only, by (a)", figure=times["text"], bound=40),
        ],
        notes={"text only, events/s": median(texts)},
    )


def fan_out(upstream: Server, rounds: int) -> Row:
    """Let a thousand read one run as it goes, without and with one that stalls."""
    figures, changes = [], []
    for _ in range(rounds):
        seconds = {}
        for stalled in (False, True):
            with target("polos", upstream) as server:
                found = load(
                    "fan_out",
                    address=server.address,
                    upstream=upstream.address,
                    readers=READERS,
                    tokens=TOKENS,
                    stalled=stalled,
                )
            seconds[stalled] = found["seconds"]
            if not stalled:
                figures.append(found["events"])
        changes.append(100 * (seconds[True] / seconds[False] - 1))
    return Row(
        name="fanout",
        title=f"fan-out: one live run of {TOKENS:,} tokens, {READERS:,} readers",
        unit="events/s",
        figures={"polos": figures},
        goals=[
            Goal(text="all complete", figure=median(figures), bound=100_000, unit="events/s"),
            Goal(
                text="a stalled reader more", figure=median(changes), bound=5, most=True, unit="%"
            ),
        ],
    )


def idle(upstream: Server, rounds: int) -> Row:
    """Attach a thousand readers to a silent run, beside the floor."""
    samples: Samples = defaultdict(list)
    for _ in range(rounds):
        for name in ("polos", "bare"):
            with target(name, upstream) as server:
                found = load(
                    "idle", name=name, address=server.address, pid=server.pid, readers=READERS
                )
            samples[name].append(found["bytes"] / 1024)
    times = median(a / b for a, b in zip(samples["polos"], samples["bare"], strict=True))
    return Row(
        name="idle",
        title=f"idle readers: memory of the service for each of {READERS:,}",
        unit="KiB",
        figures=dict(samples),
        goals=[Goal(text="by (a)", figure=times, bound=1.25, most=True)],
    )
