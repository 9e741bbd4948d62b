"""Between client and service, something ends streams and sends connections away."""

from __future__ import annotations

import asyncio
import collections
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

import grpc
import pytest

from polos.v1 import event_pb2 as pb
from polos.v1 import run_pb2
from polos_client.calls.client import PolosClient
from polos_client.calls.follow import follow
from polos_client.define.agent import Agent
from polos_client.errors import ConnectionLost
from tests.support.fake_service import (
    AGENT,
    RUN,
    FakeService,
    Link,
    Play,
    abort,
    answer_log,
    connected,
    hang,
    run_of,
    serving,
)

Code = grpc.StatusCode


async def sequences(client: PolosClient) -> list[int]:
    async with asyncio.timeout(60), aclosing(follow(client, RUN)) as batches:
        return [one.sequence async for batch in batches for one in batch]


@pytest.mark.parametrize("code", [Code.UNAVAILABLE, Code.DEADLINE_EXCEEDED, Code.INTERNAL])
async def test_silent_streams_that_a_hop_ends_are_no_outage(code: grpc.StatusCode) -> None:
    async def after_a_while(context: Any) -> None:
        await asyncio.sleep(0.3)
        await abort(code)(context)

    service = FakeService(plays=[Play(after_a_while, until=0) for _ in range(6)])
    async with connected(service, reconnect_timeout=0.5) as client:  # ended for longer in all
        assert await sequences(client) == [1, 2, 3, 4, 5, 6, 7]
    assert service.cursors == [0] * 7


async def test_a_silent_start_that_a_hop_ends_is_no_outage() -> None:
    async def after_a_while(context: Any) -> None:
        await asyncio.sleep(0.3)
        await abort(Code.UNAVAILABLE)(context)

    service = FakeService(plays=[Play(after_a_while, until=0) for _ in range(5)])
    async with connected(service, reconnect_timeout=0.5) as client:
        stream = await Agent(AGENT, "scripted", "{}").stream(client, "go")
        assert await stream.text() == "The sum is 3."
    assert len(service.starts) == 1


async def test_connections_that_a_hop_cuts_again_and_again_are_no_outage() -> None:
    service = FakeService(plays=[Play(hang, until=0) for _ in range(6)])
    async with (
        serving(service) as address,
        Link(address).open() as link,
        PolosClient(link.address, reconnect_timeout=1.0) as client,
    ):
        reader = asyncio.create_task(sequences(client))
        for cut in range(1, 7):
            while len(service.cursors) < cut:
                await asyncio.sleep(0.01)
            await asyncio.sleep(0.3)
            link.cut()
        assert await reader == [1, 2, 3, 4, 5, 6, 7]
    assert service.cursors == [0] * 7


async def test_a_hop_with_nobody_behind_it_is_an_outage() -> None:
    away = Play(abort(Code.UNAVAILABLE), until=0, named=False)
    service = FakeService(plays=[away] * 99)
    async with connected(service, reconnect_timeout=0.5) as client:
        with pytest.raises(ConnectionLost, match="reading run run-1 failed"):
            await sequences(client)


async def test_a_reader_without_patience_does_not_come_back() -> None:
    service = FakeService(plays=[Play(abort(Code.UNAVAILABLE), until=0)])
    async with connected(service, reconnect_timeout=0) as client:
        with pytest.raises(ConnectionLost, match="reading run run-1 failed"):
            await sequences(client)
    assert service.cursors == [0]


async def test_a_service_that_ends_each_stream_at_once_is_not_run_down() -> None:
    cut = Play(abort(Code.UNAVAILABLE), until=0)
    service = FakeService(plays=[cut] * 99)
    async with connected(service) as client:
        reader = asyncio.create_task(sequences(client))
        await asyncio.sleep(2.0)
        reader.cancel()
    assert len(service.cursors) < 10  # the pauses become longer


class Slow(FakeService):
    """Sends an event now and then, and answers a start after a while."""

    async def _play(self, after: int, context: Any) -> AsyncIterator[list[pb.Event]]:
        await context.send_initial_metadata((("polos-run-id", RUN),))
        for event in self.log[after:]:
            yield [event]
            await asyncio.sleep(0.02)

    async def CreateRun(self, request: Any, context: Any) -> Any:  # noqa: N802
        await asyncio.sleep(0.01)
        return await super().CreateRun(request, context)


async def test_connections_that_are_sent_away_lose_and_repeat_nothing() -> None:
    service = Slow(
        log=answer_log([f"word {index} " for index in range(100)]),
        run=run_of(run_pb2.RUN_STATE_QUEUED),
    )
    age = (("grpc.max_connection_age_ms", 250), ("grpc.max_connection_age_grace_ms", 250))
    async with serving(service, options=age) as address, PolosClient(address) as client:
        readers = [asyncio.create_task(sequences(client)) for _ in range(20)]
        started, deleted = 0, 0
        while not all(reader.done() for reader in readers):
            await client.invoke(AGENT, {"input": "go"}, request_id=f"start-{started}")
            started += 1
            await client.delete_run(f"run-{deleted}")
            deleted += 1
        whole = [one.sequence for one in service.log]
        assert [await reader for reader in readers] == [whole] * 20
    assert {one.request_id for one in service.starts} == {f"start-{one}" for one in range(started)}
    assert max(collections.Counter(service.cancels).values()) == 1
    assert len(service.cancels) == deleted > 10
