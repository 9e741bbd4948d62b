"""A reader of a silent run is patient as long as the service answers, whatever is in between."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from polos_client.calls.client import PolosClient
from polos_client.calls.follow import fold
from polos_client.define.agent import Agent
from polos_client.define.scripted import call, turn
from polos_client.define.tool import Tool
from polos_client.errors import ConnectionLost
from tests.support.control import Gate
from tests.support.service import BOUND, scripted, serving, until

HOLD = 0.3
"""Seconds after which the hop closes a connection: far less than the heartbeat's 15."""

PATIENCE = 2.0
"""Seconds for which the client looks for a service that has gone."""


class Hop:
    """A proxy that closes each connection when it is so old.

    Attributes:
        closed: how many it has closed.

    """

    def __init__(self, port: int) -> None:
        self.closed = 0
        self._port = port

    async def carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Carry one connection."""
        onward, back = await asyncio.open_connection("127.0.0.1", self._port)
        with contextlib.suppress(TimeoutError, OSError):
            async with asyncio.timeout(HOLD):
                await asyncio.gather(pipe(reader, back), pipe(onward, writer))
        self.closed += 1
        for one in (writer, back):
            one.transport.abort()


async def pipe(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Pass on what comes."""
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()


@asynccontextmanager
async def hopping(port: int) -> AsyncIterator[tuple[Hop, PolosClient]]:
    """Give a hop to the service, and a client on its other side."""
    hop = Hop(port)
    server = await asyncio.start_server(hop.carry, "127.0.0.1", 0)
    address = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    async with server, PolosClient(address, reconnect_timeout=PATIENCE) as client:
        yield hop, client


def waiting(tool: Tool) -> Agent:
    """Return an agent whose run is silent until its tool returns."""
    return scripted(turn(call(tool.id)), "done", tools=(tool,))


@pytest.mark.parametrize("where", ["from the start", "attached"])
async def test_a_silent_run_is_followed_through_a_hop_that_closes_connections(
    tmp_path: Path, where: str
) -> None:
    gate = Gate()
    agent = waiting(gate.tool)
    async with serving(tmp_path, agent) as served, hopping(served.service.port) as (hop, client):
        if where == "attached":
            reading = asyncio.create_task(fold(client, await served.start(agent)))
        else:
            stream = await agent.stream(client, "Go.")
            reading = asyncio.create_task(stream._fold())
        await gate.reached()
        await until(lambda: hop.closed > 2 * PATIENCE / HOLD, "twice the patience is over")
        assert not reading.done(), reading.exception()
        gate.opened.set()
        async with asyncio.timeout(BOUND):
            assert (await reading).text == "done"


async def test_a_service_that_has_gone_is_given_up(tmp_path: Path) -> None:
    gate = Gate()
    agent = waiting(gate.tool)
    async with serving(tmp_path, agent) as served:
        client = PolosClient(f"127.0.0.1:{served.service.port}", reconnect_timeout=PATIENCE)
        reading = asyncio.create_task(fold(client, await served.start(agent)))
        await gate.reached()
    async with asyncio.timeout(BOUND), client:
        with pytest.raises(ConnectionLost):
            await reading
