"""What is measured: the product and its peers, each started anew for a measurement."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bench.processes import ROOT, Server, server
from bench.product import LAYOUTS, replicas, secured, serving, settings

LABELS = {
    "polos": "polos serve",
    "secure": "polos serve with TLS and a key",
    "bare": "(a) bare grpc.aio",
    "floor": "(a') bare grpc.aio, paced",
    "plain": "(b) plain relay",
    "careful": "(c) careful relay",
    "a2a": "(d) a2a-sdk, memory",
    "a2a-sqlite": "(d') a2a-sdk, SQLite",
    "sse": "(e) FastAPI/SSE",
    "dbos": "(f) DBOS streams, SQLite",
    "langgraph": "(g) LangGraph dev server",
    "nats": "polos serve on NATS, one replica",
    "nats-two": "two replicas",
    "nats-workers": "one replica with --workers 2",
    "nats-elsewhere": "one replica, read at another",
}
"""By name; everything that can be measured."""


@contextmanager
def provider() -> Iterator[Server]:
    """Start the mock provider."""
    with server("bench.upstream") as upstream:
        yield upstream


@contextmanager
def target(name: str, upstream: Server) -> Iterator[Server]:
    """Start a server on an empty store."""
    if name in LAYOUTS:
        with replicas(name, upstream) as started:
            yield started
        return
    with tempfile.TemporaryDirectory(prefix="bench-", dir=ROOT / "bench") as folder:
        if name == "secure":
            with secured(Path(folder), upstream) as started:
                yield started
            return
        with server(*command(name, Path(folder)), **settings(upstream)) as started:
            yield started


def command(name: str, folder: Path) -> tuple[str, ...]:
    """Return the module and arguments of a target."""
    if name == "polos":
        return serving(f"sqlite://{folder / 'runs.db'}")
    if name == "a2a-sqlite":
        return ("bench.peers.a2a", str(folder / "tasks.db"))
    if name == "dbos":
        return ("bench.peers.dbos", str(folder / "streams.db"))
    if name == "langgraph":
        return ("bench.peers.langgraph_dev", str(folder))
    return (f"bench.peers.{name}",)
