"""No service at the address: a clear sentence within a bounded time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import grpc
import pytest

from polos import ConnectionLost, PolosClient, events
from polos_client.calls import connection as connection_module
from tests.failures.scene import unused_address
from tests.support.mock_provider import MockProvider
from tests.support.service import scripted

FINE = scripted("fine", id="fine")
UNKNOWN = "01a2048b-0000-7000-8000-000000000000"


@pytest.fixture
def patience(monkeypatch: pytest.MonkeyPatch) -> float:
    """Shorten the time for which a client tries to reach a service, and return it."""
    assert connection_module.PATIENCE <= 10.0
    monkeypatch.setattr(connection_module, "PATIENCE", 0.4)
    return 0.4


WAYS: dict[str, Callable[[PolosClient], Awaitable[Any]]] = {
    "run": lambda client: FINE.run(client, "Go."),
    "stream": lambda client: FINE.stream(client, "Go."),
    "invoke": lambda client: FINE.invoke(client, {"input": "Go."}),
    "get": lambda client: client.get_run(UNKNOWN),
    "events": lambda client: anext(events.stream_workflow(client, workflow_run_id=UNKNOWN)),
}


@pytest.mark.parametrize("way", WAYS)
async def test_no_service_at_the_address_is_said_in_time_with_what_to_do(
    patience: float, way: str
) -> None:
    began = asyncio.get_running_loop().time()
    with unused_address() as address:
        async with PolosClient(address, reconnect_timeout=patience) as client:
            with pytest.raises(ConnectionLost) as raised:
                await asyncio.wait_for(WAYS[way](client), 10)
    told = str(raised.value)
    assert f"no Polos service can be reached at {address} (UNAVAILABLE: " in told
    assert told.endswith("; start one with `polos serve`, or set POLOS_ADDRESS")
    assert asyncio.get_running_loop().time() - began < 5


async def test_what_speaks_no_grpc_is_no_service(patience: float) -> None:
    async with MockProvider() as other:
        address = other.url.split("/")[2]
        async with PolosClient(address) as client:
            with pytest.raises(ConnectionLost, match=f"no Polos service can be .* at {address} "):
                await asyncio.wait_for(FINE.run(client, "Go."), 10)


async def test_a_service_of_something_else_is_no_polos_service() -> None:
    server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
    address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    await server.start()
    try:
        async with PolosClient(address) as client:
            for way in WAYS.values():
                with pytest.raises(ConnectionLost, match=f"at {address} is not a Polos service "):
                    await asyncio.wait_for(way(client), 10)
    finally:
        await server.stop(None)
