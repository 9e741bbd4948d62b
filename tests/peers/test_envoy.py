"""Envoy: connections are sent away, calls are repeated, and replicas go while streams run."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import grpc.aio
import pytest

from polos import PolosClient
from polos.v1 import run_service_pb2 as pb
from polos.v1.run_service_pb2_grpc import RunServiceStub
from polos_service.api.grpc.run_service import RunService
from tests.support.nats import NatsServer
from tests.support.proxies import (
    RECITED,
    Authority,
    Envoy,
    SecureService,
    agent,
    recited,
    started,
    whole,
)
from tests.support.service import scripted, serving, until

MANY = 20
"""Streams beside each other."""

SOME = 30
"""Runs that are started meanwhile, one by one."""


@pytest.fixture
def authority() -> Authority:
    """Return what everybody trusts."""
    return Authority()


async def streams_and_starts(client: PolosClient) -> None:
    """Read streams while short runs are started: all are whole, and none is started twice."""
    reading = await recited(client, MANY)
    for _ in range(SOME):
        assert await whole(await agent("talker").stream(client, "Hi")) == "Hello world"
        await asyncio.sleep(0.1)
    assert set(await asyncio.gather(*reading)) == {RECITED}
    assert len(await started(client)) == MANY + SOME


async def test_connections_that_envoy_sends_away_lose_nothing(
    authority: Authority, tmp_path: Path
) -> None:
    """No stream is even interrupted: calls that begin go to a new connection."""
    young = {
        "max_connection_duration: 3600s": "max_connection_duration: 0.5s",
        "drain_timeout: 30s": "drain_timeout: 0.1s",
    }
    async with (
        SecureService(tmp_path / "service", authority) as service,
        Envoy(tmp_path / "envoy", authority, [service.port], young) as envoy,
        envoy.client() as client,
    ):
        await streams_and_starts(client)
        assert await envoy.stat("http.polos.downstream_cx_max_duration_reached") > 2
        assert await envoy.stat("http.polos.downstream_rq_total") == MANY + SOME + 1


async def test_connections_that_the_service_sends_away_lose_nothing(
    authority: Authority, tmp_path: Path
) -> None:
    young = {"POLOS_MAX_CONNECTION_AGE": "1", "POLOS_MAX_CONNECTION_AGE_GRACE": "1"}
    async with (
        SecureService(tmp_path / "service", authority, **young) as service,
        Envoy(tmp_path / "envoy", authority, [service.port]) as envoy,
        envoy.client() as client,
    ):
        await streams_and_starts(client)
        assert await envoy.stat("cluster.polos.upstream_cx_close_notify") > 2


async def test_a_drain_of_envoy_interrupts_no_stream(authority: Authority, tmp_path: Path) -> None:
    """It still takes the calls of callers who do not know another one."""
    async with (
        SecureService(tmp_path / "service", authority) as service,
        Envoy(tmp_path / "envoy", authority, [service.port]) as envoy,
        envoy.client() as client,
    ):
        reading = await recited(client, MANY)
        await envoy.tell("healthcheck/fail")
        for _ in range(SOME):
            assert await whole(await agent("talker").stream(client, "Hi")) == "Hello world"
        assert set(await asyncio.gather(*reading)) == {RECITED}
        assert await envoy.stat("http.polos.downstream_cx_drain_close") > 2
        assert await envoy.stat("http.polos.downstream_rq_total") == MANY + SOME


@pytest.fixture
def refused_starts(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Have the first answer to each start be lost; return the runs that it names."""
    stream, lost = RunService._stream, []

    async def lose(self: RunService, caller: Any, run_id: str, after: int, context: Any) -> None:
        if run_id not in lost:
            lost.append(run_id)
            await context.abort(grpc.StatusCode.UNAVAILABLE, "lost")
        await stream(self, caller, run_id, after, context)

    monkeypatch.setattr(RunService, "_stream", lose)
    return lost


async def test_a_start_that_envoy_repeats_is_one_run(
    authority: Authority, tmp_path: Path, refused_starts: list[str]
) -> None:
    """The request id makes it so, which the client always sends."""
    bold = {"retry_on: connect-failure,refused-stream": "retry_on: unavailable,reset"}
    async with (
        serving(
            tmp_path, scripted("Hello world", id="talker"), **authority.settings(tmp_path)
        ) as served,
        Envoy(tmp_path / "envoy", authority, [served.service.port], bold) as envoy,
        envoy.client(reconnect_timeout=0) as client,
    ):
        assert await whole(await agent("talker").stream(client, "Hi")) == "Hello world"
        assert await envoy.stat("cluster.polos.upstream_rq_retry_success") == 1
        assert await started(client) == refused_starts
        assert len(refused_starts) == 1


async def test_envoy_repeats_no_call_that_the_service_has_seen(
    authority: Authority, tmp_path: Path, refused_starts: list[str]
) -> None:
    async with (
        serving(
            tmp_path, scripted("Hello world", id="talker"), **authority.settings(tmp_path)
        ) as served,
        Envoy(tmp_path / "envoy", authority, [served.service.port]) as envoy,
        envoy.channel() as channel,
    ):
        with pytest.raises(grpc.aio.AioRpcError) as error:
            await (
                RunServiceStub(channel)
                .StreamRun(pb.StreamRunRequest(agent_id="talker", input="Hi"))
                .read()
            )
        assert error.value.code() is grpc.StatusCode.UNAVAILABLE
        assert len(refused_starts) == 1


@pytest.fixture
async def replicas(authority: Authority, tmp_path: Path) -> AsyncIterator[list[SecureService]]:
    """Give two replicas on one store."""
    folder = tmp_path / "nats"
    folder.mkdir()
    with NatsServer(folder) as nats:
        async with AsyncExitStack() as stack:
            yield [
                await stack.enter_async_context(
                    SecureService(
                        tmp_path / name,
                        authority,
                        nats.url,
                        POLOS_CLAIM_TIMEOUT="2",
                        POLOS_GRACE="0",
                    )
                )
                for name in ("one", "two")
            ]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
async def test_streams_go_on_at_the_other_replica(
    number: signal.Signals, authority: Authority, replicas: list[SecureService], tmp_path: Path
) -> None:
    """First one goes and comes back, then the other."""
    ports = [one.port for one in replicas]
    async with (
        Envoy(tmp_path / "envoy", authority, ports) as envoy,
        envoy.client() as client,
    ):
        reading = await recited(client, MANY)
        begun = 0
        for replica in replicas:
            replica.send(number)
            await replica.ended()
            for _ in range(10):
                assert await whole(await agent("talker").stream(client, "Hi")) == "Hello world"
                begun += 1
            await replica.start()
            await until(envoy.healthy, "both replicas are healthy")
        texts = await asyncio.gather(*reading)
        assert all(text.endswith(RECITED) for text in texts)
        assert len(await started(client)) == MANY + begun
        assert await envoy.stat("cluster.polos.upstream_rq_retry_limit_exceeded") == 0
