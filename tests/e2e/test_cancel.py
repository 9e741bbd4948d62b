"""A cancellation that is on disk is carried out by the next process, whatever agents that has."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from polos import PolosClient
from tests.e2e.stage import ASSISTANT, lose_agent, noted, service
from tests.support.mock_answers import call
from tests.support.mock_provider import MockProvider
from tests.support.nats import NatsServer
from tests.support.reader import Events, assert_whole, kinds


@pytest.fixture(params=["sqlite", "nats"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str | None]:
    """Give the address of a store; None for a file."""
    if request.param == "sqlite":
        yield None
        return
    folder = tmp_path / "nats"
    folder.mkdir()
    with NatsServer(folder) as server:
        yield server.url


async def test_a_run_whose_process_dies_while_it_is_cancelled_is_ended_without_its_agent(
    tmp_path: Path, provider: MockProvider, store: str | None
) -> None:
    provider.reply(call("resist", {}))
    async with (
        service(tmp_path, provider, store) as polos,
        PolosClient(polos.address) as client,
    ):
        stream = await ASSISTANT.stream(client, "Go")
        async with Events(stream.events) as read:
            await noted(tmp_path)
            cancelling = asyncio.create_task(stream.cancel())
            await noted(tmp_path, 2)  # the tool was cancelled, and does not give in
            await polos.kill()
            cancelling.cancel()
            lose_agent(tmp_path)
            await polos.start()
            log = await read.all()
        run = await stream.get()
    assert_whole(log)
    assert kinds(log)[-1] == "run_cancelled"
    assert run["status"] == "cancelled"
