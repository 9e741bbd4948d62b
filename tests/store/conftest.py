"""Every store passes the same contract: a further one joins by a factory here."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from polos_service.store import RunStore
from polos_service.store.nats import NatsStore
from polos_service.store.sqlite import SqliteStore
from tests.support.nats import NatsServer, replica
from tests.support.nats_stranger import Stranger
from tests.support.nats_wire import Wire

HASTE = 3.0
"""Seconds for which an impatient replica tries a request: more than one attempt takes."""


async def sqlite(request: pytest.FixtureRequest, **settings: Any) -> RunStore:
    folder: Path = request.getfixturevalue("tmp_path")
    return await SqliteStore.open(folder / "runs.db", **settings)


async def nats(request: pytest.FixtureRequest, **settings: Any) -> RunStore:
    server: NatsServer = request.getfixturevalue("nats_server")
    return await NatsStore.open(server.address(), **settings)


FACTORIES: dict[str, Callable[..., Awaitable[RunStore]]] = {
    "sqlite": sqlite,
    "nats": nats,
}


@pytest.fixture
def nats_server(tmp_path: Path) -> Iterator[NatsServer]:
    """Give a server of the test's own: it starts in a few milliseconds."""
    with NatsServer(tmp_path) as server:
        yield server


@pytest.fixture(params=FACTORIES)
def open_store(request: pytest.FixtureRequest) -> Callable[..., Awaitable[RunStore]]:
    """Give what opens the test's store, for the first time or after it was closed.

    It takes settings that all stores have: `max_queued` and `weights`.
    """
    return partial(FACTORIES[request.param], request)


@pytest.fixture
async def store(open_store: Callable[[], Awaitable[RunStore]]) -> AsyncIterator[RunStore]:
    opened = await open_store()
    yield opened
    await opened.close()


@pytest.fixture
async def one(nats_server: NatsServer) -> AsyncIterator[NatsStore]:
    """Give a replica that loses its claims after a second of silence."""
    opened = await replica(nats_server)
    yield opened
    await opened.close()


@pytest.fixture
async def other(one: NatsStore, nats_server: NatsServer) -> AsyncIterator[NatsStore]:
    """Give a second replica beside `one`."""
    opened = await replica(nats_server)
    yield opened
    await opened.close()


@pytest.fixture
async def wire(nats_server: NatsServer) -> AsyncIterator[Wire]:
    """Give a wire to the server, on which messages are lost, held and changed."""
    async with Wire(nats_server) as opened:
        yield opened


@pytest.fixture
async def wired(wire: Wire) -> AsyncIterator[NatsStore]:
    """Give a replica at the end of `wire`."""
    opened = await wire.store()
    yield opened
    await opened.close()


@pytest.fixture
async def hasty(wire: Wire) -> AsyncIterator[NatsStore]:
    """Give a replica at the end of `wire` that tries each request for a few seconds."""
    opened = await wire.store(patience=HASTE)
    yield opened
    await opened.close()


@pytest.fixture
async def stranger(nats_server: NatsServer) -> AsyncIterator[Stranger]:
    """Give somebody else who publishes on the server."""
    async with Stranger(nats_server) as somebody:
        yield somebody
