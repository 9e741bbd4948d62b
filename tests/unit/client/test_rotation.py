"""A client that lives for months: its certificates and their authority change under it."""

from __future__ import annotations

import asyncio
import logging
from contextlib import AsyncExitStack, aclosing
from pathlib import Path
from typing import Any

import grpc
import pytest
import trustme
from cryptography.hazmat.primitives import serialization

from polos_client.calls.client import PolosClient
from polos_client.calls.follow import follow
from polos_client.errors import ConnectionLost, DefinitionError
from tests.support.certificates import server_credentials, write_ca, write_pair
from tests.support.fake_service import RUN, FakeService, Play, abort, hang, serving


def client_of(address: str, folder: Path, **options: Any) -> PolosClient:
    return PolosClient(
        address,
        tls=folder / "ca.pem",
        client_cert=folder / "mine.pem",
        client_key=folder / "mine.key",
        **options,
    )


async def test_new_connections_show_the_certificate_of_today(tmp_path: Path) -> None:
    old, new = trustme.CA(), trustme.CA()
    write_ca(tmp_path, "ca", old)
    write_pair(tmp_path, "mine", old.issue_cert("client"))
    credentials = server_credentials(old.issue_cert("127.0.0.1"), clients=old)
    async with AsyncExitStack() as stack:
        address = await stack.enter_async_context(serving(FakeService(), credentials=credentials))
        client = await stack.enter_async_context(client_of(address, tmp_path))
        assert (await client.get_run(RUN)).run_id == RUN
        # From here on the service trusts another authority, and has a certificate of it.
        credentials = server_credentials(new.issue_cert("127.0.0.1"), clients=new)
        client.address = await stack.enter_async_context(
            serving(FakeService(), credentials=credentials)
        )
        write_ca(tmp_path, "ca", new)
        write_pair(tmp_path, "mine", new.issue_cert("client"))
        assert (await client.get_run(RUN)).run_id == RUN


async def test_open_streams_go_on_while_certificates_change(tmp_path: Path) -> None:
    authority, gate = trustme.CA(), asyncio.Event()
    write_ca(tmp_path, "ca", authority)
    write_pair(tmp_path, "mine", authority.issue_cert("client"))

    async def wait(_: object) -> None:
        await gate.wait()

    service = FakeService(plays=[Play(wait, until=3, rest=True) for _ in range(50)])
    credentials = server_credentials(authority.issue_cert("127.0.0.1"), clients=authority)
    seen: list[list[int]] = [[] for _ in range(50)]
    begun = asyncio.Event()

    async def read(mine: list[int]) -> None:
        async with aclosing(follow(client, RUN)) as batches:
            async for batch in batches:
                mine += [one.sequence for one in batch]
                if all(seen):
                    begun.set()

    async with (
        serving(service, credentials=credentials) as address,
        client_of(address, tmp_path) as client,
        asyncio.timeout(30),
    ):
        readers = [asyncio.create_task(read(mine)) for mine in seen]
        await begun.wait()
        for _ in range(3):
            write_pair(tmp_path, "mine", authority.issue_cert("client"))
            assert (await client.get_run(RUN)).run_id == RUN
        assert len(client._channels._retired) == 1
        gate.set()
        await asyncio.gather(*readers)
    assert seen == [[1, 2, 3, 4, 5, 6, 7]] * 50
    assert service.cursors == [0] * 50  # nobody had to come back


async def test_a_stream_that_comes_back_shows_the_certificate_of_today(tmp_path: Path) -> None:
    authority = trustme.CA()
    write_ca(tmp_path, "ca", authority)
    write_pair(tmp_path, "mine", authority.issue_cert("client"))
    gate = asyncio.Event()

    async def cut(context: Any) -> None:
        await gate.wait()
        await abort(grpc.StatusCode.UNAVAILABLE)(context)

    service = FakeService(plays=[Play(cut, until=4)])
    credentials = server_credentials(authority.issue_cert("127.0.0.1"), clients=authority)
    async with (
        serving(service, credentials=credentials) as address,
        client_of(address, tmp_path) as client,
    ):
        first = await client.channel()
        sequences = []
        async with aclosing(follow(client, RUN)) as batches:
            async for batch in batches:
                sequences += [one.sequence for one in batch]
                if not gate.is_set():
                    write_pair(tmp_path, "mine", authority.issue_cert("client"))
                    gate.set()
        assert await client.channel() is not first
    assert sequences == [1, 2, 3, 4, 5, 6, 7]


async def test_half_written_files_change_nothing_and_are_told_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    authority = trustme.CA()
    write_ca(tmp_path, "ca", authority)
    pair = write_pair(tmp_path, "mine", authority.issue_cert("client"))
    credentials = server_credentials(authority.issue_cert("127.0.0.1"), clients=authority)
    async with (
        serving(FakeService(), credentials=credentials) as address,
        client_of(address, tmp_path) as client,
    ):
        first = await client.channel()
        other = authority.issue_cert("client")
        pair.key.write_bytes(other.private_key_pem.bytes())  # the certificate is yet to come
        with caplog.at_level(logging.WARNING):
            for _ in range(3):
                assert await client.channel() is first
        told = (
            f"the client certificate '{pair.cert}' cannot be used with the key '{pair.key}': "
            "KEY_VALUES_MISMATCH; the client keeps the certificates that it had"
        )
        assert [one.message for one in caplog.records] == [told]
        write_pair(tmp_path, "mine", other)
        assert await client.channel() is not first
        assert (await client.get_run(RUN)).run_id == RUN


async def test_closing_the_client_ends_streams_of_former_certificates(tmp_path: Path) -> None:
    authority = trustme.CA()
    write_ca(tmp_path, "ca", authority)
    write_pair(tmp_path, "mine", authority.issue_cert("client"))
    service = FakeService(plays=[Play(hang, until=2)])
    credentials = server_credentials(authority.issue_cert("127.0.0.1"), clients=authority)
    async with serving(service, credentials=credentials) as address:
        client = client_of(address, tmp_path)
        batches = follow(client, RUN)
        await anext(batches)
        write_pair(tmp_path, "mine", authority.issue_cert("client"))
        await client.get_run(RUN)
        rest = asyncio.ensure_future(anext(batches))
        await asyncio.sleep(0)
        await client.close()
        with pytest.raises(ConnectionLost, match="was closed"):
            await rest


def test_files_that_cannot_be_used_are_refused(tmp_path: Path) -> None:
    authority = trustme.CA()
    ca = write_ca(tmp_path, "ca", authority)
    mine = write_pair(tmp_path, "mine", authority.issue_cert("client"))
    other = write_pair(tmp_path, "other", authority.issue_cert("client"))
    with pytest.raises(DefinitionError, match=r"mine\.pem' cannot be used .*KEY_VALUES_MISMATCH"):
        PolosClient("here:1", tls=ca, client_cert=mine.cert, client_key=other.key)
    with pytest.raises(DefinitionError, match=r"nowhere"):
        PolosClient("here:1", client_cert=tmp_path / "nowhere")
    with pytest.raises(DefinitionError, match="was given without client_cert"):
        PolosClient("here:1", client_key=mine.key)
    for tls in (False, grpc.ssl_channel_credentials()):
        with pytest.raises(DefinitionError, match="client_cert and client_key are for TLS"):
            PolosClient("here:1", tls=tls, client_cert=mine.cert, client_key=mine.key)


def test_a_key_with_a_password_is_refused_and_nobody_is_asked_for_it(tmp_path: Path) -> None:
    authority = trustme.CA()
    mine = write_pair(tmp_path, "mine", authority.issue_cert("client"))
    key = serialization.load_pem_private_key(mine.key.read_bytes(), None)
    mine.key.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"secret"),
        )
    )
    with pytest.raises(DefinitionError, match="the key is encrypted"):
        PolosClient("here:1", client_cert=mine.cert, client_key=mine.key)


async def test_certificates_come_from_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    authority = trustme.CA()
    mine = write_pair(tmp_path, "mine", authority.issue_cert("client"))
    both = tmp_path / "both.pem"
    both.write_bytes(mine.key.read_bytes() + mine.cert.read_bytes())
    credentials = server_credentials(authority.issue_cert("127.0.0.1"), clients=authority)
    monkeypatch.setenv("POLOS_TLS", str(write_ca(tmp_path, "ca", authority)))
    async with serving(FakeService(), credentials=credentials) as address:
        monkeypatch.setenv("POLOS_CLIENT_CERT", str(mine.cert))
        monkeypatch.setenv("POLOS_CLIENT_KEY", str(mine.key))
        async with PolosClient(address) as client:
            assert (await client.get_run(RUN)).run_id == RUN
        monkeypatch.delenv("POLOS_CLIENT_KEY")
        monkeypatch.setenv("POLOS_CLIENT_CERT", str(both))
        async with PolosClient(address) as client:
            assert (await client.get_run(RUN)).run_id == RUN
    assert PolosClient(address, tls=False)._channels.credentials is None
