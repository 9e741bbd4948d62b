"""The service stops: nobody is lost, nobody hangs."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
from grpc_health.v1 import health_pb2

from polos.v1 import run_service_pb2 as pb
from polos.v1.run_pb2 import RunState
from polos_client.calls.status import to_error
from polos_client.define.scripted import call, pause, turn
from polos_client.errors import DefinitionError, Draining
from polos_service.reading.tail import Readers
from polos_service.server import Service
from polos_service.store.sqlite import SqliteStore
from tests.support.control import Gate
from tests.support.service import (
    BOUND,
    Served,
    answer_of,
    events_in,
    reaching,
    scripted,
    serving,
    settings_for,
    text_of,
    until,
)
from tests.support.tails import response

NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


def refused_as_draining(error: grpc.aio.AioRpcError) -> Draining:
    """Return the refusal; it must say UNAVAILABLE, DRAINING and when to come back."""
    meaning = to_error(error, "the service")
    assert error.code() is grpc.StatusCode.UNAVAILABLE
    assert isinstance(meaning, Draining)
    assert meaning.retry_after is not None
    return meaning


async def is_draining(served: Served) -> bool:
    """Return whether the health check says that the service does not serve."""
    answer = await served.health().Check(health_pb2.HealthCheckRequest())
    return bool(answer.status == NOT_SERVING)


async def test_while_it_stops_new_runs_are_refused_and_running_ones_finish(tmp_path: Path) -> None:
    gate = Gate()
    agent = scripted(turn("Before. ", call("gate")), "After.", tools=(gate.tool,))
    service = await Service.start(settings_for(tmp_path), [agent])
    async with reaching(service, tmp_path / "runs.db") as served:
        run_id = await served.start(agent)
        reading = asyncio.create_task(served.events(run_id))
        await gate.reached()
        stopping = asyncio.create_task(service.stop(BOUND))
        await until(lambda: is_draining(served), "health says NOT_SERVING")
        start = pb.StreamRunRequest(agent_id="demo", input="Go.")
        with pytest.raises(grpc.aio.AioRpcError) as streamed:
            await served.runs.StreamRun(start).read()
        with pytest.raises(grpc.aio.AioRpcError) as created:
            await served.start(agent)
        assert refused_as_draining(streamed.value).retry_after == 1.0
        assert refused_as_draining(created.value).retry_after == 1.0
        assert not reading.done()
        gate.opened.set()
        async with asyncio.timeout(BOUND):
            await stopping
            events = await reading
        assert text_of(events) == "Before. After."
        assert answer_of(events).HasField("agent_finish")


async def test_a_reader_of_a_run_that_does_not_finish_is_sent_away_to_come_back(
    tmp_path: Path,
) -> None:
    agent = scripted(turn("Hello ", pause()))
    service = await Service.start(settings_for(tmp_path), [agent])
    async with reaching(service, tmp_path / "runs.db") as served:
        run_id = await served.start(agent)
        live = served.runs.StreamWorkflow(pb.StreamWorkflowRequest(workflow_run_id=run_id))
        seen = 0
        while seen < 3:
            response = await live.read()
            assert isinstance(response, pb.StreamWorkflowResponse)
            seen += len(response.events)
        await service.stop(0.05)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            while await live.read():
                pass
        assert refused_as_draining(caught.value).retry_after == 0.2
    async with serving(tmp_path) as served:
        run = (await served.runs.GetRun(pb.GetRunRequest(run_id=run_id))).run
        assert run.state == RunState.RUN_STATE_QUEUED
        assert not run.HasField("outcome")


async def test_a_client_that_keeps_iterating_resumes_at_the_next_service(tmp_path: Path) -> None:
    gate = Gate()
    agent = scripted(turn("Before. ", call("gate")), "After.", tools=(gate.tool,))
    service = await Service.start(settings_for(tmp_path), [agent])
    try:
        async with reaching(service, tmp_path / "runs.db") as served:
            stream = await agent.stream(served.client, "Go.")
            reading = asyncio.create_task(sequences(stream.events))
            await gate.reached()
            await service.stop(0)
            gate.opened.set()
            again = settings_for(tmp_path, listen=f"127.0.0.1:{service.port}")
            service = await Service.start(again, [agent])
            async with asyncio.timeout(BOUND):
                seen = await reading
                assert seen == list(range(1, len(seen) + 1))
                assert await stream.text() == "Before. After."
    finally:
        await service.stop(0)


async def sequences(events: object) -> list[int]:
    """Return the events' sequences."""
    return [event.sequence_id async for event in events]  # type: ignore[attr-defined]


async def test_a_start_that_meets_the_end_of_a_service_succeeds_at_the_next(
    tmp_path: Path,
) -> None:
    agent = scripted("fine")
    gate = Gate()
    busy = scripted(turn(call("gate")), tools=(gate.tool,), id="busy")
    service = await Service.start(settings_for(tmp_path), [agent, busy])
    try:
        async with reaching(service, tmp_path / "runs.db") as served:
            await served.start(busy)
            await gate.reached()
            stopping = asyncio.create_task(service.stop(0.5))
            await until(lambda: is_draining(served), "health says NOT_SERVING")
            running = asyncio.create_task(agent.run(served.client, "Go."))
            await stopping
            again = settings_for(tmp_path, listen=f"127.0.0.1:{service.port}")
            service = await Service.start(again, [agent])
            async with asyncio.timeout(BOUND):
                assert (await running).result == "fine"
            runs = await served.runs.ListRuns(pb.ListRunsRequest(workflow_id="demo"))
            assert len(runs.runs) == 1
    finally:
        await service.stop(0)


async def test_readers_are_sent_away_even_where_a_heartbeat_is_just_due(tmp_path: Path) -> None:
    agent = scripted(turn("Hello", pause()))
    async with serving(tmp_path, agent) as served:
        run_id = await served.start(agent)
        await until(lambda: settled(served, run_id), "the run waits")
        loop = asyncio.get_running_loop()
        readers = Readers(served.service._store, heartbeat=0.05)
        with readers.tail("default", run_id, 3) as tail:
            assert not events_in(await response(tail))  # the first response comes at once
            reading = asyncio.ensure_future(response(tail))
            await until(lambda: tail._sleep is not None, "the reader waits")
            loop.call_at(tail._beat.when() + 0.001, readers.close)
            time.sleep(0.1)  # noqa: ASYNC251 - both become due while the loop is held
            assert not events_in(await reading)  # the heartbeat
            with pytest.raises(Draining):
                await response(tail)


async def settled(served: Served, run_id: str) -> bool:
    """Return whether the run has said its word."""
    run = (await served.runs.GetRun(pb.GetRunRequest(run_id=run_id))).run
    return run.latest_sequence == 3


async def test_a_service_that_cannot_start_lets_go_of_its_store(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[SqliteStore] = []
    real = SqliteStore.open

    async def remember(*settings: Any) -> SqliteStore:
        opened.append(await real(*settings))
        return opened[-1]

    monkeypatch.setattr(SqliteStore, "open", remember)
    with pytest.raises(DefinitionError, match="Two agents have the id 'demo'"):
        await Service.start(settings_for(tmp_path), [scripted("one"), scripted("two")])
    assert len(opened) == 1
    await (await real(tmp_path / "runs.db")).close()
