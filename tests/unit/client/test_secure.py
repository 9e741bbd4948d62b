"""TLS and the API key, over a real socket, as a proxy in front of a service has it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
import trustme

from polos.v1.run_service_pb2_grpc import add_RunServiceServicer_to_server
from polos_client.calls import events
from polos_client.calls.client import PolosClient
from polos_client.define.agent import Agent
from polos_client.errors import ConnectionLost
from tests.support.fake_service import AGENT, RUN, FakeService

DEMO = Agent(AGENT, "scripted", "{}")


class Keys(grpc.aio.ServerInterceptor):
    """Notes what each call brings as its authorization."""

    def __init__(self) -> None:
        self.seen: dict[str, Any] = {}

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Any]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Any:
        method = str(handler_call_details.method).rpartition("/")[2]
        metadata = dict(handler_call_details.invocation_metadata or ())
        self.seen[method] = metadata.get("authorization")
        return await continuation(handler_call_details)


@asynccontextmanager
async def listening(
    keys: Keys, credentials: grpc.ServerCredentials | None = None
) -> AsyncIterator[str]:
    """Serve on loopback and give `localhost:PORT`."""
    server = grpc.aio.server(interceptors=[keys])
    add_RunServiceServicer_to_server(FakeService(), server)
    port = (
        server.add_insecure_port("127.0.0.1:0")
        if credentials is None
        else server.add_secure_port("127.0.0.1:0", credentials)
    )
    await server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        await server.stop(None)


@asynccontextmanager
async def with_tls(authority: trustme.CA, keys: Keys) -> AsyncIterator[str]:
    certificate = authority.issue_cert("127.0.0.1")
    pair = (
        certificate.private_key_pem.bytes(),
        b"".join(one.bytes() for one in certificate.cert_chain_pems),
    )
    async with listening(keys, grpc.ssl_server_credentials([pair])) as address:
        yield address


async def use_all(client: PolosClient) -> None:
    """Make a unary call, and both streams."""
    await client.get_run(RUN)
    assert await (await DEMO.stream(client, "go")).text() == "The sum is 3."
    assert len([one async for one in events.stream_workflow(client, workflow_run_id=RUN)]) == 7


async def test_a_service_behind_tls_is_called_with_the_key(tmp_path: Path) -> None:
    authority, keys = trustme.CA(), Keys()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    async with with_tls(authority, keys) as address:
        url = f"https://{address}"
        async with PolosClient(url, tls=tmp_path / "ca.pem", api_key="k") as client:
            await use_all(client)
    assert keys.seen == dict.fromkeys(("GetRun", "StreamRun", "StreamWorkflow"), "Bearer k")


async def test_tls_trusts_the_authorities_of_the_system(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    authority, keys = trustme.CA(), Keys()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))  # what OpenSSL takes for those
    async with with_tls(authority, keys) as address:
        async with PolosClient(api_url=f"https://{address}") as client:
            await use_all(client)
        monkeypatch.setenv("POLOS_TLS", "true")
        async with PolosClient(address) as client:
            await use_all(client)
    assert keys.seen == dict.fromkeys(("GetRun", "StreamRun", "StreamWorkflow"))


async def test_a_service_that_is_not_trusted_is_not_reached(tmp_path: Path) -> None:
    keys = Keys()
    trustme.CA().cert_pem.write_to_path(tmp_path / "other.pem")
    async with (
        with_tls(trustme.CA(), keys) as address,
        PolosClient(
            address, tls=tmp_path / "other.pem", api_key="k", reconnect_timeout=0.2
        ) as client,
    ):
        with pytest.raises(ConnectionLost, match="a certificate that is trusted here"):
            await client.get_run(RUN)
    assert keys.seen == {}


async def test_a_service_without_tls_is_not_reached_by_https() -> None:
    async with (
        listening(Keys(), None) as address,
        PolosClient(f"https://{address}", reconnect_timeout=0.2) as client,
    ):
        with pytest.raises(ConnectionLost, match="does it speak TLS"):
            await client.get_run(RUN)


async def test_the_key_goes_to_this_machine_in_plaintext(monkeypatch: pytest.MonkeyPatch) -> None:
    keys = Keys()
    monkeypatch.setenv("POLOS_API_KEY", "k")
    async with listening(keys) as address, PolosClient(address) as client:
        await use_all(client)
    assert keys.seen == dict.fromkeys(("GetRun", "StreamRun", "StreamWorkflow"), "Bearer k")
