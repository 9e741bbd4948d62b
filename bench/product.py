"""The product as it is started: on a file, or as replicas on NATS JetStream."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from bench.processes import ROOT, Server, server
from tests.support.nats import NatsServer

APP, BYSTANDER = "app.py", "bystander.py"
"""What a replica serves that takes up runs, and what one that only reads."""

LAYOUTS = {
    "nats": (APP,),
    "nats-two": (APP, APP),
    "nats-workers": (APP,),
    "nats-elsewhere": (APP, BYSTANDER),
}
"""By name, what each replica on NATS serves."""

OPTIONS = {"nats-workers": ("--workers", "2")}
"""Further arguments of `polos serve`, by the name of the layout."""


def serving(store: str, app: str = APP, *options: str) -> tuple[str, ...]:
    """Return the module and arguments of `polos serve` on a store."""
    listen = ("--listen", "127.0.0.1:0", "--store", store)
    return ("bench.serve", "serve", str(ROOT / "bench" / app), *listen, *options)


def settings(upstream: Server) -> dict[str, str]:
    """Return the settings of a server that asks the mock provider."""
    return {
        "OPENAI_BASE_URL": f"http://{upstream.address}/v1",
        "OPENAI_API_KEY": "none",
        "POLOS_MAX_RUNS": "4096",
    }


@contextmanager
def replicas(name: str, upstream: Server) -> Iterator[Server]:
    """Start NATS and the replicas of a layout; their addresses stand with commas between."""
    with tempfile.TemporaryDirectory(prefix="bench-", dir=ROOT / "bench") as folder:
        nats = NatsServer(Path(folder))
        nats.start()
        try:
            with ExitStack() as stack:
                commands = [serving(nats.url, app, *OPTIONS.get(name, ())) for app in LAYOUTS[name]]
                started = [
                    stack.enter_context(server(*command, **settings(upstream)))
                    for command in commands
                ]
                yield Server(",".join(one.address for one in started), started[0].pid)
        finally:
            nats.stop()
