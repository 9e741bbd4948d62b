"""The provider and the load generator that `make bench` builds with Go from `bench/go`.

They take a fraction of the CPU time of Python programs, so that a service which is measured
with them has the machine almost to itself.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from statistics import median
from typing import Any

from bench.processes import LOAD_TIMEOUT, ROOT, Server, environment, started
from bench.product import LAYOUTS
from bench.table import Cost
from bench.targets import LABELS, target

BIN = ROOT / "bench" / "go" / "bin"

PROTOCOLS = {
    "polos": "polos",
    "secure": "polos",
    "nats": "polos",
    "nats-two": "polos",
    "nats-workers": "polos",
    "nats-elsewhere": "elsewhere",
    "bare": "relay",
    "floor": "relay",
    "plain": "relay",
    "careful": "relay",
    "a2a": "a2a",
    "a2a-sqlite": "a2a",
    "sse": "sse",
    "dbos": "sse",
    "langgraph": "langgraph",
}
"""What a target speaks, by its name."""

PRODUCT = frozenset({"polos", "secure", *LAYOUTS})
"""The targets that are Polos: what fails there is a finding."""

PEER_TRIES = 3
"""How often a load is put on a peer until it carries all of it, or is left out."""

Measured = dict[str, Any]
"""What a load prints, as `bench/go/load` documents it."""


def built() -> bool:
    """Whether the programs are there."""
    return all((BIN / name).exists() for name in ("provider", "load"))


@contextmanager
def provider() -> Iterator[Server]:
    """Start the mock provider."""
    with started([str(BIN / "provider")]) as running:
        yield running


def load(scenario: str, name: str, server: Server, upstream: Server, **options: Any) -> Measured:
    """Put a load on a target, and return what was measured."""
    options |= {
        **server.options,
        "protocol": PROTOCOLS[name],
        "address": server.address,
        "service": ",".join(map(str, (server.pid, *server.beside))),
        "provider": upstream.pid,
    }
    if name == "nats-elsewhere":
        options["address"] = server.address.replace(",", "/")
    done = subprocess.run(  # noqa: S603 - a program of this repository
        [BIN / "load", scenario, *(f"-{option}={value}" for option, value in options.items())],
        stdout=subprocess.PIPE,
        text=True,
        env=environment(),
        check=True,
        timeout=LOAD_TIMEOUT,
    )
    measured: Measured = json.loads(done.stdout)
    return measured


def measured(
    scenario: str, upstream: Server, rounds: int, names: Iterable[str], **options: Any
) -> dict[str, list[Measured]]:
    """Put the same load on targets one after the other, so many times; each is started anew.

    A peer that does not carry the load is left out.
    """
    found: dict[str, list[Measured]] = {name: [] for name in names}
    for _ in range(rounds):
        for name in list(found):
            try:
                found[name].append(tried(scenario, name, upstream, **options))
            except subprocess.CalledProcessError:
                if name in PRODUCT:
                    raise
                del found[name]
    return found


def left_out(names: Iterable[str], found: Mapping[str, object]) -> dict[str, float]:
    """Return notes about the peers that did not carry a load: how often each was tried."""
    return {
        f"tries of {LABELS[name]}, none of which carried the load": PEER_TRIES
        for name in names
        if name not in found
    }


def tried(scenario: str, name: str, upstream: Server, **options: Any) -> Measured:
    """Put a load on a target that is started for it; a peer that ends a stream is tried again.

    Raises:
        CalledProcessError: it ends streams each time.

    """
    tries = 1 if name in PRODUCT else PEER_TRIES
    while True:
        tries -= 1
        with target(name, upstream) as server:
            try:
                return load(scenario, name, server, upstream, **options)
            except subprocess.CalledProcessError:
                if not tries:
                    raise


def samples_of(found: dict[str, list[Measured]], figure: str) -> dict[str, list[float]]:
    """Return one of the figures, by target."""
    return {name: [one[figure] for one in all_rounds] for name, all_rounds in found.items()}


def costs(found: dict[str, list[Measured]]) -> dict[str, Cost]:
    """Return what a token took and how many arrived, by target: medians of the rounds."""
    return {name: cost_of(all_rounds) for name, all_rounds in found.items()}


def cost_of(rounds: list[Measured]) -> Cost:
    """Return the medians of the rounds."""
    keys = {
        "service": "service_us",
        "provider": "provider_us",
        "client": "client_us",
        "delivered": "delivered",
    }
    return Cost(**{name: median(one.get(key, 1.0) for one in rounds) for name, key in keys.items()})
