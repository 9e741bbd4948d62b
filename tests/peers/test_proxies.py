"""Envoy and nginx: streams through them, with the configurations that the documentation gives."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from functools import partial
from pathlib import Path

import grpc.aio
import pytest

from polos.v1 import run_service_pb2 as pb
from polos.v1.run_service_pb2_grpc import RunServiceStub
from polos_client.errors import AgentNotFound, ConnectionLost, Unauthenticated
from polos_client.wire import INPUT_LIMIT, REQUEST_LIMIT
from tests.support.proxies import (
    RECITED,
    Authority,
    Envoy,
    Nginx,
    Proxy,
    SecureService,
    agent,
    recited,
    started,
    whole,
)
from tests.support.service import until

CUT = {
    Envoy: (
        "timeout: 0s",
        "timeout: 0s\n                  max_stream_duration: {max_stream_duration: %gs}",
    ),
    Nginx: ("grpc_read_timeout 60s", "grpc_read_timeout %gs"),
}
"""What a proxy's configuration has, and what ends streams after so many seconds instead: with
Envoy in any case, with nginx if they are silent."""

MANY = 20
"""Streams beside each other."""


@pytest.fixture(params=[Envoy, Nginx], ids=["envoy", "nginx"])
def kind(request: pytest.FixtureRequest) -> type[Proxy]:
    """Return each proxy."""
    found: type[Proxy] = request.param
    return found


@pytest.fixture
def authority() -> Authority:
    """Return what everybody trusts."""
    return Authority()


@pytest.fixture
async def service(authority: Authority, tmp_path: Path) -> AsyncIterator[SecureService]:
    """Give a service behind no proxy yet."""
    async with SecureService(tmp_path / "service", authority) as service:
        yield service


@pytest.fixture
def proxied(
    kind: type[Proxy], authority: Authority, service: SecureService, tmp_path: Path
) -> Callable[..., Proxy]:
    """Return what makes a proxy in front of the service."""
    return partial(kind, tmp_path / "proxy", authority, [service.port])


async def test_streams_calls_and_errors_pass(proxied: Callable[..., Proxy]) -> None:
    async with proxied() as proxy, proxy.client() as client:
        stream = await agent("talker").stream(client, "x" * INPUT_LIMIT)
        assert await whole(stream) == "Hello world"
        assert (await stream.get())["status"] == "completed"
        sleeping = await agent("sleeper").stream(client, "Hi")
        assert await sleeping.cancel()
        assert len(await started(client)) == 2
        with pytest.raises(AgentNotFound, match="talker"):
            await agent("nobody").stream(client, "Hi")


async def test_calls_that_are_too_large_are_refused_by_the_service(
    proxied: Callable[..., Proxy],
) -> None:
    start = pb.CreateRunRequest(agent_id="talker", input="Hi")
    large = pb.CreateRunRequest(agent_id="talker", input="x" * REQUEST_LIMIT)
    async with proxied() as proxy, proxy.channel() as channel:
        runs = RunServiceStub(channel)
        await runs.CreateRun(start)  # until a connection is settled, gRPC takes larger metadata
        for request, value in ((start, "x" * 24_000), (large, "")):
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await runs.CreateRun(request, metadata=(("x-more", value),))
            assert refused.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        await runs.CreateRun(start)


@pytest.mark.parametrize("seconds", [2, 10])
async def test_a_silent_run_is_read_although_each_stream_is_cut(
    kind: type[Proxy], proxied: Callable[..., Proxy], seconds: int
) -> None:
    """The client is as impatient as the pauses between its attempts allow."""
    plain, cut = CUT[kind]
    silent = agent("quiet-12" if seconds == 2 else "quiet-35")
    async with (
        proxied({plain: cut % seconds}) as proxy,
        proxy.client(reconnect_timeout=1.5) as client,
    ):
        streams = [await silent.stream(client, "Hi") for _ in range(MANY)]
        assert await asyncio.gather(*map(whole, streams)) == ["Waited"] * MANY
        assert len(await started(client)) == MANY


async def test_heartbeats_keep_silent_streams_open(
    authority: Authority, service: SecureService, tmp_path: Path
) -> None:
    """It takes longer than what the proxies are told of silence."""
    silent = agent("quiet-70")
    async with (
        Envoy(tmp_path / "envoy", authority, [service.port]) as envoy,
        Nginx(tmp_path / "nginx", authority, [service.port]) as nginx,
        envoy.client() as one,
        nginx.client() as other,
    ):
        streams = [await silent.stream(client, "Hi") for client in (one, other)]
        assert await asyncio.gather(*map(whole, streams)) == ["Waited"] * 2
        assert await envoy.stat("http.polos.downstream_rq_total") == 1
        assert await envoy.stat("http.polos.downstream_rq_idle_timeout") == 0
        assert "timed out" not in nginx.said()
        await until(lambda: bool(nginx.calls()), "the call is logged, once it has ended")
        assert len(nginx.calls()) == 1


async def test_streams_go_on_after_the_service_was_killed(
    proxied: Callable[..., Proxy], service: SecureService
) -> None:
    async with proxied() as proxy, proxy.client() as client:
        reading = await recited(client, MANY)
        await service.kill()
        late = asyncio.create_task(agent("talker").stream(client, "Hi"))
        await service.start()
        await asyncio.gather(*reading)
        assert await whole(await late) == "Hello world"
        assert len(await started(client)) == MANY + 1


async def test_streams_go_on_after_the_proxy_was_killed(proxied: Callable[..., Proxy]) -> None:
    async with proxied() as proxy, proxy.client() as client:
        reading = await recited(client, MANY)
        await proxy.end()
        late = asyncio.create_task(agent("talker").stream(client, "Hi"))
        await proxy.start()
        assert set(await asyncio.gather(*reading)) == {RECITED}
        assert await whole(await late) == "Hello world"
        assert len(await started(client)) == MANY + 1


async def test_callers_need_a_certificate_with_mtls(
    proxied: Callable[..., Proxy], authority: Authority
) -> None:
    async with proxied(mtls=True) as proxy:
        async with proxy.client(tls=authority.credentials("caller.example")) as client:
            assert await whole(await agent("talker").stream(client, "Hi")) == "Hello world"
        async with proxy.client(reconnect_timeout=1) as client:
            # Envoy refuses the handshake, nginx the call.
            with pytest.raises((ConnectionLost, Unauthenticated)):
                await agent("talker").stream(client, "Hi")


async def test_no_replica_is_unavailable(
    proxied: Callable[..., Proxy], service: SecureService
) -> None:
    async with proxied() as proxy, proxy.channel() as channel:
        await service.kill()
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await RunServiceStub(channel).CreateRun(pb.CreateRunRequest(agent_id="talker"))
        assert refused.value.code() is grpc.StatusCode.UNAVAILABLE
