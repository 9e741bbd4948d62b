"""A Unix socket, switches of the standard services, and connections that are sent away."""

from __future__ import annotations

import asyncio
import stat
from functools import wraps
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2

from fuzz.raw import PING, PREFACE, SETTINGS, frame
from polos.v1.agent_service_pb2 import ListAgentsRequest
from polos_client.calls.client import PolosClient
from polos_client.define.scripted import call, turn
from polos_service.api.grpc.run_service import RunService
from polos_service.listening import ListenError
from polos_service.server import Service
from tests.support.control import Gate
from tests.support.reader import Events, assert_whole, texts
from tests.support.service import BOUND, scripted, serving, settings_for, until, words

AGENT = scripted("Hello.")


async def test_a_unix_socket_is_served_for_its_user_alone_and_removed(tmp_path: Path) -> None:
    path = tmp_path / "polos.sock"
    settings = settings_for(tmp_path, listen=f"unix:{path}")
    service = await Service.start(settings, [AGENT])
    assert service.address == f"unix:{path}"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    (tmp_path / "other").mkdir()
    with pytest.raises(ListenError, match="another process listens there"):
        await Service.start(settings_for(tmp_path / "other", listen=f"unix:{path}"))
    async with PolosClient(service.address) as client:
        assert await (await AGENT.stream(client, "Go.")).text() == "Hello."
    await service.stop(0)
    assert list_folder(tmp_path) == ["other"]
    again = await Service.start(settings, [AGENT])
    await again.stop(0)


def list_folder(folder: Path) -> list[str]:
    """Return the names in a folder, without the store's."""
    return [one.name for one in folder.iterdir() if "runs.db" not in one.name]


async def test_a_service_that_cannot_start_leaves_no_socket(tmp_path: Path) -> None:
    path = tmp_path / "polos.sock"
    path.mkdir()
    with pytest.raises(ListenError, match="something else"):
        await Service.start(settings_for(tmp_path, listen=f"unix:{path}"))
    assert not path.with_name("polos.sock.lock").exists()


async def is_there(call: Any) -> bool:
    """Return whether a method is implemented."""
    try:
        await call
    except grpc.aio.AioRpcError as error:
        if error.code() is grpc.StatusCode.UNIMPLEMENTED:
            return False
        raise
    return True


@pytest.mark.parametrize("health", [False, True])
@pytest.mark.parametrize("reflection", [False, True])
async def test_health_and_reflection_have_a_switch_each(
    tmp_path: Path,
    health: bool,  # noqa: FBT001
    reflection: bool,  # noqa: FBT001
) -> None:
    async with serving(tmp_path, AGENT, health=health, reflection=reflection) as served:
        check = served.health().Check(health_pb2.HealthCheckRequest())
        asked = iter([reflection_pb2.ServerReflectionRequest(list_services="")])
        told = served.reflection().ServerReflectionInfo(asked).read()
        assert (await is_there(check), await is_there(told)) == (health, reflection)
        assert [agent.agent_id for agent in await served.client.list_agents()] == ["demo"]


async def test_a_client_whose_connection_is_sent_away_in_a_stream_misses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[object] = []
    stream_workflow = RunService.StreamWorkflow

    @wraps(stream_workflow)  # with what it needs of its caller
    def counting(*arguments: Any) -> Any:
        opened.append(arguments)
        return stream_workflow(*arguments)

    monkeypatch.setattr(RunService, "StreamWorkflow", counting)
    gate = Gate()
    said = words(50)
    agent = scripted(turn("Before. ", call("gate")), turn(*said), tools=(gate.tool,))
    age = {"max_connection_age": 1, "max_connection_age_grace": 0.5}
    async with serving(tmp_path, agent, **age) as served:
        stream = await agent.stream(served.client, "Go.")
        async with Events(stream.events) as read:
            await gate.reached()
            await until(lambda: len(opened) >= 2, "the reader was sent away and came back, twice")
            gate.opened.set()
            log = await read.all()
    assert_whole(log)
    assert "".join(texts(log)) == "Before. " + "".join(said)


async def test_a_stream_that_ends_within_the_grace_is_not_broken(tmp_path: Path) -> None:
    gate = Gate()
    agent = scripted(turn("Before. ", call("gate")), "After.", tools=(gate.tool,))
    age = {"max_connection_age": 1, "max_connection_age_grace": BOUND}
    async with serving(tmp_path, agent, **age) as served:
        reading = asyncio.create_task(served.events(await served.start(agent)))
        await gate.reached()
        state = served.channel.get_state()
        while state is grpc.ChannelConnectivity.READY:  # until GOAWAY
            await served.channel.wait_for_state_change(state)
            state = served.channel.get_state()
        assert await served.client.list_agents()
        gate.opened.set()
        events = await reading
    assert [event.sequence for event in events] == [*range(1, len(events) + 1)]
    assert events[-1].terminal


async def test_more_metadata_is_taken_where_the_settings_allow_it(tmp_path: Path) -> None:
    long: Any = (("authorization", "Bearer " + "x" * 20_000),)
    async with serving(tmp_path, AGENT, max_metadata=64 * 1024) as served:
        answer: Any = served.agents.ListAgents
        assert (await answer(ListAgentsRequest(), metadata=long)).agents


async def pinging(address: tuple[str, int], pause: float) -> bytes:
    """Ping six times; return what the service sends until it has answered, or closes."""
    reader, writer = await asyncio.open_connection(*address)
    writer.write(PREFACE + frame(SETTINGS, 0, 0, b""))
    heard = b""
    for number in range(6):
        await asyncio.sleep(pause)
        writer.write(frame(PING, 0, 0, b"number %d" % number))
    async with asyncio.timeout(BOUND):
        while b"number 5" not in heard and (piece := await reader.read(1000)):
            heard += piece
    writer.close()
    return heard


async def test_a_client_may_ping_as_often_as_the_settings_say(tmp_path: Path) -> None:
    for interval, pause in ((10, 0), (1, 1.1)):
        async with serving(tmp_path, AGENT, min_ping_interval=interval) as served:
            heard = await pinging(("127.0.0.1", served.service.port), pause)
        assert (b"too_many_pings" in heard) is (pause == 0)
