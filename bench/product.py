"""The product as it is started: on a file, or as replicas on NATS JetStream."""

from __future__ import annotations

import secrets
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

import trustme

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

WORKERS = {"nats-workers": 2}
"""Processes of each replica, by the name of the layout, where `polos serve` starts several."""

PATIENCE = 60.0
"""Seconds in which all workers have to listen."""


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
def secured(folder: Path, upstream: Server) -> Iterator[Server]:
    """Start a service that speaks TLS and demands a key."""
    authority = trustme.CA()
    certificate = authority.issue_cert("127.0.0.1")
    ca, cert, key = (folder / name for name in ("ca.pem", "cert.pem", "key.pem"))
    authority.cert_pem.write_to_path(ca)
    certificate.cert_chain_pems[0].write_to_path(cert)
    certificate.private_key_pem.write_to_path(key)
    api_key = f"polos_bench_{secrets.token_hex(32)}"
    command = serving(
        f"sqlite://{folder / 'runs.db'}", APP, "--tls-cert", str(cert), "--tls-key", str(key)
    )
    with server(*command, **settings(upstream), POLOS_BOOTSTRAP_KEY=api_key) as started:
        yield replace(started, options={"ca": str(ca), "key": api_key})


@contextmanager
def replicas(name: str, upstream: Server) -> Iterator[Server]:
    """Start NATS and the replicas of a layout; their addresses stand with commas between."""
    with tempfile.TemporaryDirectory(prefix="bench-", dir=ROOT / "bench") as folder:
        nats = NatsServer(Path(folder))
        nats.start()
        try:
            with ExitStack() as stack:
                options = ("--workers", str(WORKERS[name])) if name in WORKERS else ()
                commands = [serving(nats.url, app, *options) for app in LAYOUTS[name]]
                started = [
                    stack.enter_context(server(*command, **settings(upstream)))
                    for command in commands
                ]
                if name in WORKERS:
                    wait_for_listeners(started[0].address, WORKERS[name])
                first, *others = started
                yield Server(
                    ",".join(one.address for one in started),
                    first.pid,
                    tuple(one.pid for one in others),
                )
        finally:
            nats.stop()


def wait_for_listeners(address: str, count: int) -> None:
    """Return once so many sockets listen at an address: each worker has its own."""
    deadline = time.monotonic() + PATIENCE
    port = f"{int(address.rpartition(':')[2]):04X}"
    while listeners(port) < count:
        if time.monotonic() > deadline:
            raise RuntimeError(f"{count} workers did not listen at {address} in {PATIENCE:g} s")
        time.sleep(0.1)


def listeners(port: str) -> int:
    """Count the sockets that listen at a port, which is given as the kernel writes it."""
    listening = "0A"
    lines = [
        line.split()
        for table in ("tcp", "tcp6")
        for line in Path("/proc/net", table).read_text().splitlines()[1:]
    ]
    return sum(line[1].endswith(f":{port}") and line[3] == listening for line in lines)
