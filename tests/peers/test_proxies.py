"""Envoy and nginx: streams through proxies, with the configurations that the documentation gives."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import grpc.aio
import pytest

from polos import AgentStream, PolosClient
from polos.v1 import run_service_pb2 as pb
from polos.v1.run_service_pb2_grpc import RunServiceStub
from polos_client.errors import AgentNotFound, ConnectionLost
from polos_client.wire import INPUT_LIMIT, REQUEST_LIMIT
from tests.support.process import ServiceProcess
from tests.support.proxies import APP, Envoy, Nginx, Proxy, agent

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
async def service(tmp_path: Path) -> AsyncIterator[ServiceProcess]:
    """Give a service behind no proxy yet."""
    (tmp_path / "app.py").write_text(APP)
    async with ServiceProcess(tmp_path / "app.py", tmp_path / "runs.db") as service:
        yield service


async def whole(stream: AgentStream) -> str:
    """Read a stream to its end; each event must come once, in order. Return the text."""
    events = [event async for event in stream.events]
    assert [event.sequence_id for event in events] == list(range(1, len(events) + 1))
    assert events[-1].event_type == "agent_finish"
    return "".join(event.data["content"] for event in events if event.event_type == "text_delta")


async def started(client: PolosClient) -> list[str]:
    """Return the ids of all runs."""
    return [run.run_id async for run in client.list_runs()]


async def test_streams_calls_and_errors_pass(
    kind: type[Proxy], service: ServiceProcess, tmp_path: Path
) -> None:
    async with kind(tmp_path / "proxy", [service.port]) as proxy, proxy.client() as client:
        stream = await agent("talker").stream(client, "x" * INPUT_LIMIT)
        assert await whole(stream) == "Hello world"
        assert (await stream.get())["status"] == "completed"
        sleeping = await agent("sleeper").stream(client, "Hi")
        assert await sleeping.cancel()
        assert len(await started(client)) == 2
        with pytest.raises(AgentNotFound, match="talker"):
            await agent("nobody").stream(client, "Hi")


async def test_what_the_service_does_not_take_is_refused_as_without_a_proxy(
    kind: type[Proxy], service: ServiceProcess, tmp_path: Path
) -> None:
    large = pb.CreateRunRequest(agent_id="talker", input="x" * REQUEST_LIMIT)
    async with kind(tmp_path / "proxy", [service.port]) as proxy:
        said = []
        for channel in (grpc.aio.insecure_channel(service.address), proxy.channel()):
            for request, metadata in ((large, ()), (pb.CreateRunRequest(agent_id="talker", input="Hi"), (("x-large", "x" * 20_000),))):
                with pytest.raises(grpc.aio.AioRpcError) as refused:
                    await RunServiceStub(channel).CreateRun(request, metadata=metadata)
                said.append((refused.value.code(), refused.value.details()))
            await channel.close()
        print(said)
        assert 0


@pytest.mark.parametrize("seconds", [2, 10])
async def test_a_silent_run_is_read_although_each_stream_is_cut(
    kind: type[Proxy], service: ServiceProcess, tmp_path: Path, seconds: int
) -> None:
    """The client is as impatient as the pauses between its attempts allow."""
    plain, cut = CUT[kind]
    silent = agent("quiet-12" if seconds == 2 else "quiet-35")
    async with (
        kind(tmp_path / "proxy", [service.port], {plain: cut % seconds}) as proxy,
        proxy.client(reconnect_timeout=1.5) as client,
    ):
        streams = [await silent.stream(client, "Hi") for _ in range(MANY)]
        assert await asyncio.gather(*map(whole, streams)) == ["Waited"] * MANY
        assert len(await started(client)) == MANY


async def test_heartbeats_keep_silent_streams_open(service: ServiceProcess, tmp_path: Path) -> None:
    """It takes longer than what the proxies are told of silence."""
    silent = agent("quiet-70")
    async with (
        Envoy(tmp_path / "envoy", [service.port]) as envoy,
        Nginx(tmp_path / "nginx", [service.port]) as nginx,
        envoy.client() as one,
        nginx.client() as other,
    ):
        streams = [await silent.stream(client, "Hi") for client in (one, other)]
        assert await asyncio.gather(*map(whole, streams)) == ["Waited"] * 2
        assert await envoy.stat("http.polos.downstream_rq_total") == 1
        assert await envoy.stat("http.polos.downstream_rq_idle_timeout") == 0
        assert nginx.said() == ""


async def test_streams_go_on_after_the_service_was_killed(
    kind: type[Proxy], service: ServiceProcess, tmp_path: Path
) -> None:
    async with kind(tmp_path / "proxy", [service.port]) as proxy, proxy.client() as client:
        streams = [await agent("reciter").stream(client, "Hi") for _ in range(MANY)]
        reading = [asyncio.create_task(whole(stream)) for stream in streams]
        await asyncio.sleep(1)
        await service.kill()
        late = asyncio.create_task(agent("talker").stream(client, "Hi"))
        await service.start()
        texts = [text async for text in aall(reading)]
        print(set(texts))
        assert await whole(await late) == "Hello world"
        assert len(await started(client)) == MANY + 1


async def aall(tasks):
    for one in tasks:
        yield await one


async def test_streams_go_on_after_the_proxy_was_killed(
    kind: type[Proxy], service: ServiceProcess, tmp_path: Path
) -> None:
    async with kind(tmp_path / "proxy", [service.port]) as proxy, proxy.client() as client:
        streams = [await agent("reciter").stream(client, "Hi") for _ in range(MANY)]
        reading = [asyncio.create_task(whole(stream)) for stream in streams]
        await asyncio.sleep(1)
        await proxy.end()
        late = asyncio.create_task(agent("talker").stream(client, "Hi"))
        await proxy.start()
        assert len(set(await asyncio.gather(*reading))) == 1
        assert await whole(await late) == "Hello world"
        assert len(await started(client)) == MANY + 1


async def test_callers_need_a_certificate_with_mtls(
    kind: type[Proxy], service: ServiceProcess, tmp_path: Path
) -> None:
    async with kind(tmp_path / "proxy", [service.port], mtls=True) as proxy:
        async with proxy.client(tls=proxy.tls(named=True)) as client:
            assert await whole(await agent("talker").stream(client, "Hi")) == "Hello world"
        async with proxy.client(reconnect_timeout=1) as client:
            with pytest.raises(ConnectionLost) as e:
                await agent("talker").stream(client, "Hi")
            print(e.value)
