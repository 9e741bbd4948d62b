"""How a NATS store proves who it is, and whom it trusts: each against a real server."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import nkeys
import pytest
from structlog.testing import capture_logs

from polos_client.errors import StoreUnavailable
from polos_service.store.nats import Endpoint, NatsStore
from polos_service.store.nats.connection import Connection
from tests.support.nats import NatsServer
from tests.support.nats_access import certified, credentials, key, name, operated
from tests.support.nats_wire import Wire
from tests.support.stores import claimed, new_run, soon, until

AT_ONCE = 15.0
"""Seconds: less than the 30 for which a server that does not answer is waited for."""


@asynccontextmanager
async def opened(address: Endpoint) -> AsyncIterator[NatsStore]:
    store = await soon(NatsStore.open(address))
    try:
        yield store
    finally:
        await store.close()


async def refused_at_once(address: Endpoint, why: str) -> None:
    began = time.monotonic()
    with pytest.raises(StoreUnavailable, match=why) as told:
        await soon(NatsStore.open(address))
    assert time.monotonic() - began < AT_ONCE
    assert "secret" not in str(told.value)
    assert "POLOS_NATS_CREDS" in str(told.value), "it says where to look"


async def test_a_password_is_never_told() -> None:
    address = Endpoint(servers=("nats://user:secret@127.0.0.1:1",), patience=0.2)
    with pytest.raises(StoreUnavailable) as told:
        await soon(NatsStore.open(address))
    assert "127.0.0.1:1" in str(told.value)
    assert "secret" not in str(told.value)


async def test_a_nats_that_is_not_there_is_logged_once_until_it_was_reached() -> None:
    connection = Connection(Endpoint(servers=("nats://127.0.0.1:1",)))
    with capture_logs() as told:
        await connection._failed(OSError("refused"))
        await connection._failed(OSError("refused"))
    assert [one["error"] for one in told] == ["refused"]


async def test_a_wrong_or_missing_password_is_refused_at_once(tmp_path: Path) -> None:
    with NatsServer(tmp_path, "--user", "me", "--pass", "secret") as server:
        place = server.url.removeprefix("nats://")
        async with opened(Endpoint(servers=(f"nats://me:secret@{place}",))) as store:
            assert (await claimed(store)).epoch == 1
        for who in ("", "me:secretive@", "secret@"):
            await refused_at_once(
                Endpoint(servers=(f"nats://{who}{place}",)), f"{place} cannot be used .*Violation"
            )


async def test_an_nkey_of_somebody_else_or_none_is_refused_at_once(tmp_path: Path) -> None:
    mine, others = (key(nkeys.PREFIX_BYTE_USER) for _ in range(2))
    for file, seed in (("mine", mine.seed), ("others", others.seed), ("broken", b"SUAnothing")):
        (tmp_path / file).write_bytes(seed)
    config = tmp_path / "nats.conf"
    config.write_text(f'authorization {{ users: [{{ nkey: "{name(mine)}" }}] }}')
    with NatsServer(tmp_path, "--config", str(config)) as server:
        async with opened(Endpoint(servers=(server.url,), nkey=tmp_path / "mine")) as store:
            assert (await claimed(store)).epoch == 1
        for file, why in (("others", "Violation"), ("broken", "nkeys"), ("none", "No such file")):
            await refused_at_once(Endpoint(servers=(server.url,), nkey=tmp_path / file), why)


async def test_a_credentials_file_holds_a_jwt_and_its_key(tmp_path: Path) -> None:
    config, account = operated(tmp_path)
    mine = credentials(tmp_path / "mine", account)
    others = credentials(tmp_path / "others", key(nkeys.PREFIX_BYTE_ACCOUNT))
    with NatsServer(tmp_path, "--config", str(config)) as server:
        async with opened(Endpoint(servers=(server.url,), credentials=mine)) as store:
            assert (await claimed(store)).epoch == 1
        for file, why in ((others, "Violation"), (tmp_path / "none", "No such file")):
            await refused_at_once(Endpoint(servers=(server.url,), credentials=file), why)


async def test_credentials_that_expire_are_read_anew(tmp_path: Path) -> None:
    config, account = operated(tmp_path)
    mine = credentials(tmp_path / "mine", account, expires=int(time.time()) + 2)
    with NatsServer(tmp_path, "--config", str(config)) as server:
        async with (
            Wire(server) as wire,
            opened(replace(wire.endpoint(10), credentials=mine)) as store,
        ):
            credentials(mine, account)
            await until(lambda: wire.connections > 1)
            await soon(store.create(new_run()))
            assert await store.healthy()


async def test_over_tls_a_server_is_trusted_whose_authority_ssl_cert_file_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    authority, certificate, secret = certified(tmp_path)
    tls = ("--tls", "--tlscert", str(certificate), "--tlskey", str(secret))
    with NatsServer(tmp_path, *tls, "--user", "me", "--pass", "secret") as server:
        address = Endpoint(servers=(f"tls://me:secret@127.0.0.1:{server.port}",))
        await refused_at_once(address, "certificate verify failed.*SSL_CERT_FILE")
        monkeypatch.setenv("SSL_CERT_FILE", str(authority))
        async with opened(address) as store:
            assert (await claimed(store)).epoch == 1


async def test_no_password_is_told_to_a_server_that_offers_no_tls(tmp_path: Path) -> None:
    with NatsServer(tmp_path, "--user", "me", "--pass", "secret") as server:
        address = Endpoint(servers=(f"tls://me:secret@127.0.0.1:{server.port}",))
        await refused_at_once(address, "offers no TLS")


async def test_a_store_whose_user_was_taken_away_comes_back_with_the_user(tmp_path: Path) -> None:
    config = tmp_path / "nats.conf"
    config.write_text("authorization { user: me, password: secret }")
    with NatsServer(tmp_path, "--config", str(config)) as server:
        url = f"nats://me:secret@127.0.0.1:{server.port}"
        async with opened(Endpoint(servers=(url,), patience=15)) as store:
            config.write_text("authorization { user: other, password: secret }")
            server.tell(signal.SIGHUP)
            async with asyncio.timeout(60):
                while await store.healthy():
                    await asyncio.sleep(0.02)
            config.write_text("authorization { user: me, password: secret }")
            server.tell(signal.SIGHUP)
            await soon(store.create(new_run()))
            assert await store.healthy()


async def test_a_connection_that_is_refused_leaves_no_task(tmp_path: Path) -> None:
    before = asyncio.all_tasks()
    with (
        NatsServer(tmp_path, "--user", "me", "--pass", "secret") as server,
        pytest.raises(StoreUnavailable),
    ):
        await soon(Connection.open(Endpoint(servers=(server.url,))))
    await asyncio.sleep(0)
    assert asyncio.all_tasks() == before
