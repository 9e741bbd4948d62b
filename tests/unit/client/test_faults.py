"""What keeps a client from a service is named, and tried again only where that may help."""

from __future__ import annotations

import asyncio
import re
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import pytest
import trustme

from polos_client.calls import connection, events
from polos_client.calls.client import PolosClient
from polos_client.define.agent import Agent
from polos_client.errors import ConnectionLost
from tests.failures.scene import unused_address
from tests.support.certificates import PAST, server_credentials, write_ca, write_pair
from tests.support.fake_service import AGENT, RUN, FakeService, serving

AT_ONCE = 8.0
"""Seconds that a busy machine has for what is not tried again; a client's patience is longer."""

WAYS: dict[str, Callable[[PolosClient], Awaitable[Any]]] = {
    "call": lambda client: client.get_run(RUN),
    "start": lambda client: Agent(AGENT, "scripted", "{}").stream(client, "go"),
    "reader": lambda client: anext(events.stream_workflow(client, workflow_run_id=RUN)),
    "command": lambda client: client.reach(60),
}


@dataclass
class Case:
    """How a service is served and a client is made, and what the client says."""

    says: str
    service: str = "127.0.0.1"
    expired: bool = False
    demands: bool = False
    plain_service: bool = False
    client: dict[str, Any] = field(default_factory=lambda: {"tls": "ca.pem"})


CASES = {
    "unknown CA": Case("an unknown CA has signed it", client={"tls": "other.pem"}),
    "wrong name": Case("it is for another IP address", service="elsewhere.example"),
    "expired": Case("service's certificate is refused: it has expired", expired=True),
    "client certificate missing": Case("requires a client certificate, and none", demands=True),
    "client certificate of another CA": Case(
        "service refuses the client certificate '.*foreign.pem'",
        demands=True,
        client={"tls": "ca.pem", "client_cert": "foreign.pem", "client_key": "foreign.key"},
    ),
    "client certificate expired": Case(
        "service refuses the client certificate '.*old.pem': certificate has expired",
        demands=True,
        client={"tls": "ca.pem", "client_cert": "old.pem", "client_key": "old.key"},
    ),
    "plaintext at TLS": Case("service speaks TLS, and the call was in plaintext", client={}),
    "plaintext at mTLS": Case(
        "service speaks TLS, and the call was in plaintext", demands=True, client={}
    ),
    "TLS at plaintext": Case("the server does not speak TLS", plain_service=True),
}


@asynccontextmanager
async def played(case: Case, folder: Path) -> AsyncIterator[PolosClient]:
    """Serve as the case has it, and give its client."""
    authority, other = trustme.CA(), trustme.CA()
    write_ca(folder, "ca", authority)
    write_ca(folder, "other", other)
    write_pair(folder, "foreign", other.issue_cert("client"))
    write_pair(folder, "old", authority.issue_cert("client", not_after=PAST))
    leaf = authority.issue_cert(case.service, not_after=PAST if case.expired else None)
    credentials = server_credentials(leaf, clients=authority if case.demands else None)
    options = {name: folder / file for name, file in case.client.items()}
    async with AsyncExitStack() as stack:
        address = await stack.enter_async_context(
            serving(FakeService(), credentials=None if case.plain_service else credentials)
        )
        yield await stack.enter_async_context(PolosClient(address, **options))


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", CASES)
async def test_a_failed_handshake_is_named_at_once(name: str, way: str, tmp_path: Path) -> None:
    async with played(CASES[name], tmp_path) as client, asyncio.timeout(AT_ONCE):
        with pytest.raises(ConnectionLost, match=CASES[name].says):
            await WAYS[way](client)


@pytest.mark.parametrize("way", ["call", "start", "reader"])
async def test_credentials_of_grpc_itself_are_judged_by_what_it_says(
    way: str, tmp_path: Path
) -> None:
    credentials = server_credentials(trustme.CA().issue_cert("127.0.0.1"))
    other = write_ca(tmp_path, "other", trustme.CA()).read_bytes()
    async with (
        serving(FakeService(), credentials=credentials) as address,
        PolosClient(address, tls=grpc.ssl_channel_credentials(other)) as client,
        asyncio.timeout(AT_ONCE),
    ):
        with pytest.raises(ConnectionLost, match="CERTIFICATE_VERIFY_FAILED"):
            await WAYS[way](client)


@pytest.fixture
def _short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "PATIENCE", 0.4)


@pytest.mark.usefixtures("_short")
@pytest.mark.parametrize("way", ["call", "start", "reader"])
async def test_a_refused_connection_is_named_after_the_patience(way: str) -> None:
    with unused_address() as address:
        async with PolosClient(address, reconnect_timeout=0.4) as client:
            with pytest.raises(ConnectionLost, match=r"\(UNAVAILABLE: connection refused\)"):
                await WAYS[way](client)


async def test_a_missing_socket_file_is_named(tmp_path: Path) -> None:
    async with PolosClient(f"unix:{tmp_path}/none.sock", reconnect_timeout=0.2) as client:
        with pytest.raises(ConnectionLost, match=r"none\.sock.*no such file"):
            await client.get_run(RUN)


@pytest.mark.parametrize("way", WAYS)
async def test_a_name_that_nobody_knows_is_not_tried_for_long(way: str) -> None:
    async with PolosClient("nowhere.invalid:1") as client, asyncio.timeout(AT_ONCE):
        with pytest.raises(ConnectionLost, match=r"'nowhere.invalid' cannot be resolved \(DNS\)"):
            await WAYS[way](client)


async def test_a_service_that_starts_late_is_waited_for() -> None:
    with unused_address() as address:
        port = int(address.rpartition(":")[2])
        client = PolosClient(address)
        call = asyncio.create_task(client.get_run(RUN))
        await asyncio.sleep(0.3)
    async with serving(FakeService(), port):
        assert (await call).run_id == RUN
    await client.close()


async def test_a_handshake_that_never_ends_is_named(tmp_path: Path) -> None:
    write_ca(tmp_path, "ca", trustme.CA())
    with socket.create_server(("127.0.0.1", 0)) as silent:  # the kernel accepts, nobody answers
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        async with PolosClient(address, tls=tmp_path / "ca.pem") as client:
            with pytest.raises(ConnectionLost, match="no answer"):
                await client.reach(2)


async def test_a_client_that_was_served_waits_where_a_refusal_is_only_inferred(
    tmp_path: Path,
) -> None:
    authority = trustme.CA()
    ca = write_ca(tmp_path, "ca", authority)
    mine = write_pair(tmp_path, "mine", authority.issue_cert("client"))
    leaf = authority.issue_cert("127.0.0.1")
    client = PolosClient("here:1", tls=ca, client_cert=mine.cert, client_key=mine.key)
    async with serving(
        FakeService(), credentials=server_credentials(leaf, clients=authority)
    ) as address:
        client.address = address
        await client.get_run(RUN)
    port = int(address.rpartition(":")[2])
    closing = server_credentials(leaf, clients=trustme.CA())
    async with serving(FakeService(), port, credentials=closing):
        call = asyncio.create_task(client.get_run(RUN))
        await asyncio.sleep(1.0)
        assert not call.done()
    async with serving(
        FakeService(), port, credentials=server_credentials(leaf, clients=authority)
    ):
        assert (await call).run_id == RUN
    await client.close()


class Answering:
    """A proxy that answers CONNECT with a status, and notes what it was asked."""

    def __init__(self, status: str, *, tunnel: str = "") -> None:
        self.status = status
        self.tunnel = tunnel
        self.asked: list[str] = []
        self._writers: list[asyncio.StreamWriter] = []
        self._tasks: list[asyncio.Task[Any]] = []

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._tasks.append(asyncio.current_task())  # type: ignore[arg-type]
        self._writers.append(writer)
        try:
            self.asked.append((await reader.readuntil(b"\r\n\r\n")).decode())
            writer.write(f"HTTP/1.1 {self.status}\r\n\r\n".encode())
            await writer.drain()
            if self.tunnel:
                host, _, port = self.tunnel.rpartition(":")
                back, forth = await asyncio.open_connection(host, int(port))
                self._writers.append(forth)
                await asyncio.gather(copy(reader, forth), copy(back, writer))
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    async def close(self) -> None:
        for writer in self._writers:
            writer.transport.abort()
        await asyncio.gather(*self._tasks, return_exceptions=True)


async def copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(65536):
            writer.write(data)
    finally:
        writer.close()


@asynccontextmanager
async def proxied(
    proxy: Answering, monkeypatch: pytest.MonkeyPatch, variable: str = "http_proxy"
) -> AsyncIterator[str]:
    """Let the environment name the proxy, and give its address."""
    for name in ("grpc_proxy", "https_proxy", "http_proxy", "no_grpc_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    server = await asyncio.start_server(proxy, "127.0.0.1", 0)
    async with server:
        address = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
        monkeypatch.setenv(variable, f"http://me:hidden@{address}")
        yield address
        server.close()
        await asyncio.sleep(0)  # what was accepted becomes a task
        await proxy.close()
        await asyncio.sleep(0)  # what was aborted is closed


@pytest.mark.parametrize("variable", ["grpc_proxy", "https_proxy", "http_proxy"])
async def test_a_proxy_that_refuses_is_named_without_its_password(
    variable: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    proxy = Answering("407 Proxy Authentication Required")
    async with (
        proxied(proxy, monkeypatch, variable) as address,
        PolosClient("service.invalid:50051") as client,
        asyncio.timeout(AT_ONCE),
    ):
        with pytest.raises(ConnectionLost) as caught:
            await client.get_run(RUN)
    told = str(caught.value)
    assert f"through the proxy http://{address} ({variable})" in told
    assert "the proxy refuses the connection: 407 Proxy Authentication Required" in told
    assert "hidden" not in told
    assert proxy.asked[0].startswith("CONNECT service.invalid:50051 ")


async def test_a_proxy_that_nobody_runs_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    async with proxied(Answering("500 No"), monkeypatch):
        pass
    async with PolosClient("service.invalid:1", reconnect_timeout=0.3) as client:
        with pytest.raises(ConnectionLost, match=r"\(http_proxy\).*the proxy: connection refused"):
            await client.get_run(RUN)


async def test_a_service_is_reached_through_a_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    async with serving(FakeService()) as service:
        proxy = Answering("200 OK", tunnel=service)
        async with (
            proxied(proxy, monkeypatch),
            PolosClient("service.invalid:50051") as client,
        ):
            assert (await client.get_run(RUN)).run_id == RUN
    assert len(proxy.asked) == 1


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "dns:///localhost", "LocalHost"])
async def test_this_machine_is_reached_without_a_proxy(
    host: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    proxy = Answering("403 Forbidden")
    async with (
        serving(FakeService()) as service,
        proxied(proxy, monkeypatch),
        PolosClient(f"{host}:{service.rpartition(':')[2]}") as client,
    ):
        assert (await client.get_run(RUN)).run_id == RUN
    assert proxy.asked == []


@pytest.mark.parametrize("entry", ["service.invalid", ".invalid", "other, service.invalid"])
async def test_a_host_that_is_excepted_is_not_said_to_be_behind_the_proxy(
    entry: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    proxy = Answering("403 Forbidden")
    async with proxied(proxy, monkeypatch):
        monkeypatch.setenv("no_proxy", entry)
        async with PolosClient("service.invalid:1", reconnect_timeout=0.2) as client:
            with pytest.raises(ConnectionLost, match=re.escape("at service.invalid:1 (")):
                await client.get_run(RUN)
    assert proxy.asked == []
