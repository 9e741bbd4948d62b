"""TLS and client certificates on a real service; certificates are replaced while it serves."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import AsyncIterable, AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
import trustme
from structlog.testing import capture_logs

from polos.v1 import run_service_pb2 as pb
from polos.v1.agent_service_pb2 import ListAgentsRequest
from polos.v1.agent_service_pb2_grpc import AgentServiceStub
from polos.v1.event_pb2 import Event
from polos.v1.run_service_pb2_grpc import RunServiceStub
from polos_client.calls.client import PolosClient
from polos_client.define.agent import Agent
from polos_client.define.scripted import call, turn
from polos_service import tls
from polos_service.api.grpc import server
from polos_service.server import Service
from tests.support.control import Gate
from tests.support.service import (
    BOUND,
    answer_of,
    scripted,
    settings_for,
    text_of,
    until,
    words,
)
from tests.support.tls import HOST, PAST, Files, trusting

QUICKLY = 10.0
"""Seconds within which a handshake that cannot succeed must have failed."""

AGENT = scripted("Hello.")


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return Files(tmp_path)


@asynccontextmanager
async def secured(files: Files, *agents: Agent, mutual: bool = False) -> AsyncIterator[Service]:
    """Serve over TLS for as long as the block."""
    paths = files.mutual if mutual else files.settings
    service = await Service.start(settings_for(files.cert.parent, **paths), agents or (AGENT,))
    try:
        yield service
    finally:
        await service.stop(0)


def channel(service: Service, credentials: grpc.ChannelCredentials | None) -> grpc.aio.Channel:
    """Return a channel with a connection of its own."""
    options = (("grpc.use_local_subchannel_pool", 1),)
    if credentials is None:
        return grpc.aio.insecure_channel(service.address, options=options)
    return grpc.aio.secure_channel(service.address, credentials, options=options)


async def ask(service: Service, credentials: grpc.ChannelCredentials | None) -> list[str]:
    """Return the ids of the agents, over a connection of its own."""
    async with channel(service, credentials) as own:
        answer = await AgentServiceStub(own).ListAgents(ListAgentsRequest(), timeout=QUICKLY)
    return [agent.agent_id for agent in answer.agents]


async def refused(service: Service, credentials: grpc.ChannelCredentials | None) -> None:
    """Assert that a handshake fails before the call's deadline."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await ask(service, credentials)
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE


async def test_a_client_that_trusts_the_authority_is_served(files: Files) -> None:
    authority = files.cert.with_name("authority.pem")
    authority.write_bytes(files.authority.cert_pem.bytes())
    async with secured(files) as service, PolosClient(service.address, tls=authority) as client:
        assert [agent.agent_id for agent in await client.list_agents()] == ["demo"]
        assert await (await AGENT.stream(client, "Go.")).text() == "Hello."


async def test_plaintext_and_tls_do_not_mix_and_harm_nobody(files: Files, tmp_path: Path) -> None:
    async with secured(files) as service:
        await refused(service, None)
        assert await ask(service, files.trusting()) == ["demo"]
    service = await Service.start(settings_for(tmp_path), [AGENT])
    await refused(service, files.trusting())
    assert await ask(service, None) == ["demo"]
    await service.stop(0)


async def test_every_client_needs_a_certificate_of_the_authority_of_clients(files: Files) -> None:
    good = files.clients.issue_cert("someone@clients.example")
    wrong = trustme.CA().issue_cert("someone@clients.example")
    own = files.authority.issue_cert("someone@clients.example")
    expired = files.clients.issue_cert("someone@clients.example", not_after=PAST)
    async with secured(files, mutual=True) as service:
        for bad in (None, wrong, own, expired):
            await refused(service, files.trusting(bad))
        await refused(service, None)
        assert await ask(service, files.trusting(good)) == ["demo"]


async def test_without_an_authority_of_clients_none_is_asked_for(files: Files) -> None:
    async with secured(files) as service:
        assert await ask(service, files.trusting(trustme.CA().issue_cert("me"))) == ["demo"]


async def test_handlers_see_who_has_the_certificate(files: Files) -> None:
    seen: dict[str, Any] = {}

    async def note(_: bytes, context: Any) -> bytes:
        seen.update(context.auth_context())
        return b""

    bare = grpc.aio.server()
    method: Any = grpc.unary_unary_rpc_method_handler(note)
    bare.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("a", {"b": method}),))
    files_of = server.tls_files(settings_for(files.cert.parent, **files.mutual))
    assert files_of is not None
    port = bare.add_secure_port(f"{HOST}:0", server.credentials(files_of))
    await bare.start()
    one = files.clients.issue_cert("jo@x.example", "jo.x.example", common_name="jo")
    async with grpc.aio.secure_channel(f"{HOST}:{port}", files.trusting(one)) as own:
        ask_it: Any = own.unary_unary("/a/b")
        await ask_it(b"")
    await bare.stop(None)
    assert seen["x509_common_name"] == [b"jo"]
    assert seen["x509_subject_alternative_name"] == [b"jo@x.example", b"jo.x.example"]


async def test_fifty_open_streams_outlive_new_certificates_and_authorities(files: Files) -> None:
    gate = Gate()
    said = words(20)
    agent = scripted(turn("Before. ", call("gate")), turn(*said), tools=(gate.tool,))
    old = files.authority
    client = files.clients.issue_cert("old@clients.example")
    async with secured(files, agent, mutual=True) as service, AsyncExitStack() as stack:
        channels = [
            await stack.enter_async_context(channel(service, trusting(old, client)))
            for _ in range(10)
        ]
        start = pb.StreamRunRequest(agent_id=agent.id, input="Go.")
        streams = [RunServiceStub(channels[number % 10]).StreamRun(start) for number in range(50)]
        reading = [asyncio.create_task(whole(stream)) for stream in streams]
        await until(lambda: gate.calls == 50, "all runs wait in the middle")

        files.authority, files.clients = trustme.CA(), trustme.CA()
        files.write(files.authority.issue_cert(HOST))
        files.client_ca.write_bytes(files.clients.cert_pem.bytes())
        assert await ask(service, files.trusting(files.clients.issue_cert("new"))) == [agent.id]
        await refused(service, trusting(old, client))
        await refused(service, files.trusting(client))

        gate.opened.set()
        async with asyncio.timeout(BOUND):
            logs = await asyncio.gather(*reading)
    for log in logs:
        assert [event.sequence for event in log] == [*range(1, len(log) + 1)]
        assert text_of(log) == "Before. " + "".join(said)
        assert answer_of(log).HasField("agent_finish")


async def whole(stream: AsyncIterable[pb.StreamRunResponse]) -> list[Event]:
    """Return all events of one stream."""
    return [event async for response in stream for event in response.events]


async def test_files_that_cannot_be_used_keep_the_service_as_it_is(files: Files) -> None:
    async with secured(files) as service:
        good = files.trusting()
        with capture_logs() as logs:
            key = files.key.read_bytes()
            for damage in (files.key.unlink, lambda: files.key.write_bytes(key[: len(key) // 2])):
                damage()
                for _ in range(3):
                    assert await ask(service, good) == ["demo"]
            files.write(trustme.CA().issue_cert(HOST))
            await refused(service, good)
        told = [one["event"] for one in logs]
        assert told == ["tls_files_cannot_be_used"] * 2 + ["tls_files_loaded"]


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let handshakes have three seconds."""
    options = {**dict(server.OPTIONS), "grpc.server_handshake_timeout_ms": 3000}
    monkeypatch.setattr(server, "OPTIONS", tuple(options.items()))


@pytest.mark.usefixtures("hasty")
async def test_handshakes_that_stall_end_and_delay_nobody(files: Files) -> None:
    async with secured(files) as service:
        silent = [await asyncio.open_connection(HOST, service.port) for _ in range(50)]
        halves = [await half_of_a_handshake(service) for _ in range(50)]
        assert await ask(service, files.trusting()) == ["demo"]
        async with asyncio.timeout(BOUND):
            await asyncio.gather(*(closed(reader) for reader, _ in silent + halves))
        for _, writer in silent + halves:
            writer.close()
        assert await ask(service, files.trusting()) == ["demo"]


async def half_of_a_handshake(
    service: Service,
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Send the first half of what a client begins with."""
    outgoing = ssl.MemoryBIO()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    with pytest.raises(ssl.SSLWantReadError):
        context.wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname=HOST).do_handshake()
    hello = outgoing.read()
    reader, writer = await asyncio.open_connection(HOST, service.port)
    writer.write(hello[: len(hello) // 2])
    return reader, writer


async def closed(reader: asyncio.StreamReader) -> None:
    """Wait until the service has closed a connection."""
    try:
        while await reader.read(1000):
            pass
    except ConnectionError:
        pass


@pytest.mark.usefixtures("hasty")
async def test_a_client_that_says_nothing_after_its_handshake_is_closed(files: Files) -> None:
    context = ssl.create_default_context(cadata=files.authority.cert_pem.bytes().decode())
    context.set_alpn_protocols(["h2"])
    async with secured(files) as service:
        reader, writer = await asyncio.open_connection(HOST, service.port, ssl=context)
        async with asyncio.timeout(BOUND):
            await closed(reader)
        writer.close()


@pytest.mark.parametrize(("seconds", "resumed"), [(BOUND, True), (0.0, False)])
async def test_a_session_is_not_resumed_when_its_certificate_may_have_expired(
    files: Files,
    monkeypatch: pytest.MonkeyPatch,
    seconds: float,
    resumed: bool,  # noqa: FBT001
) -> None:
    monkeypatch.setattr(tls, "RESUMABLE", seconds)
    context = ssl.create_default_context(cadata=files.authority.cert_pem.bytes().decode())
    context.set_alpn_protocols(["h2"])
    with files.clients.issue_cert("me").private_key_and_cert_chain_pem.tempfile() as pem:
        context.load_cert_chain(pem)

    def connected(port: int, session: ssl.SSLSession | None) -> tuple[ssl.SSLSession | None, bool]:
        with (
            socket.create_connection((HOST, port), timeout=BOUND) as raw,
            context.wrap_socket(raw, server_hostname=HOST, session=session) as secure,
        ):
            assert secure.recv(9)  # its first frame follows the ticket
            return secure.session, bool(secure.session_reused)

    async with secured(files, mutual=True) as service:
        session, reused = await asyncio.to_thread(connected, service.port, None)
        assert not reused
        assert (await asyncio.to_thread(connected, service.port, session))[1] is resumed
