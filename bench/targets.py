"""What is measured: the product and its peers, each started anew for a measurement."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bench.processes import ROOT, Server, server

LABELS = {
    "polos": "polos serve",
    "bare": "(a) bare grpc.aio",
    "plain": "(b) plain relay",
    "careful": "(c) careful relay",
    "a2a": "(d) a2a-sdk, memory",
    "a2a-sqlite": "(d') a2a-sdk, SQLite",
    "sse": "(e) FastAPI/SSE",
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
    provided = {"OPENAI_BASE_URL": f"http://{upstream.address}/v1", "OPENAI_API_KEY": "none"}
    with (
        tempfile.TemporaryDirectory(prefix="bench-", dir=ROOT / "bench") as folder,
        server(*command(name, Path(folder)), **provided, POLOS_MAX_RUNS="4096") as started,
    ):
        yield started


def command(name: str, folder: Path) -> tuple[str, ...]:
    """Return the module and arguments of a target."""
    if name == "polos":
        return polos(folder / "runs.db")
    if name == "a2a-sqlite":
        return ("bench.peers.a2a", str(folder / "tasks.db"))
    return (f"bench.peers.{name}",)


def polos(store: Path) -> tuple[str, ...]:
    """Return the module and arguments of `polos serve` on a store."""
    listen = ("--listen", "127.0.0.1:0", "--store", f"sqlite://{store}")
    return ("bench.serve", "serve", str(ROOT / "bench" / "app.py"), *listen)
