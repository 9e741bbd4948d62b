"""A NATS that refuses, is half gone, or is not the one who answers."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from polos.v1.run_pb2 import RunState
from polos_client.errors import CallError, StoreUnavailable
from polos_service.errors import Fenced
from polos_service.store import Claim, RunQuery
from polos_service.store.nats import Endpoint, NatsStore
from polos_service.store.nats.subjects import LOG, RUNS, WORK, log_subject
from tests.support.nats import NatsServer, replica
from tests.support.nats_stranger import Stranger
from tests.support.nats_wire import Wire
from tests.support.stores import (
    ALL,
    COMPLETED,
    cancel,
    claimed,
    first_claim,
    frame,
    history,
    new_run,
    soon,
    spans,
    until,
)

FAILED = RunState.RUN_STATE_FAILED
LIST = RunQuery(limit=99)


async def briefly(call: Awaitable[Any]) -> None:
    """Await what may take for ever; how it fails in a second is what is looked at."""
    task = asyncio.ensure_future(call)
    await asyncio.wait({task}, timeout=1)
    task.cancel()
    await asyncio.wait({task})
    if not task.cancelled():
        task.result()


async def everything(store: NatsStore, claim: Claim, first: int) -> list[BaseException | None]:
    """Call every method of the port, append event `first`, say; return what each raises."""
    now, run_id = time.time_ns(), claim.run_id
    calls: list[Callable[[], Awaitable[Any]]] = [
        lambda: store.create(new_run(request_id="again")),
        lambda: store.create(new_run(definition=b"x" * 3_000_000)),
        lambda: briefly(first_claim(store, {"agent"})),
        lambda: store.claim_run("default", run_id),
        lambda: store.claim_run("default", run_id, force=True),
        lambda: store.overdue(now, now),
        store.waiting,
        lambda: store.append(claim, frame(first, data=b"x" * 1000)),
        lambda: store.read("default", run_id, 0, ALL),
        lambda: briefly(store.wait("default", run_id, 1 << 40)),
        lambda: history(store, claim),
        lambda: store.command("default", run_id, cancel(run_id)),
        lambda: briefly(store.commands(replace(claim, epoch=99), 1)),
        lambda: store.get("default", run_id),
        lambda: store.list("default", LIST),
        lambda: store.delete("default", run_id),
        lambda: store.expire(now),
        lambda: store.release(claim),
        store.healthy,
    ]
    raised: list[BaseException | None] = []
    for call in calls:
        try:
            await soon(call())
        except Exception as error:  # noqa: BLE001 - that is what is looked at
            raised.append(error)
        else:
            raised.append(None)
    return raised


def only_the_ports(raised: list[BaseException | None]) -> None:
    leaked = [error for error in raised if not isinstance(error, CallError | Fenced | None)]
    assert not leaked
    assert any(isinstance(error, StoreUnavailable) for error in raised)


@pytest.mark.parametrize("stream", [LOG, WORK, RUNS, "KV_POLOS_COMMANDS", "KV_POLOS_DEFINITIONS"])
@pytest.mark.parametrize("how", ["deleted", "sealed", "full"])
async def test_what_nats_refuses_is_told_in_the_ports_words(
    nats_server: NatsServer, stranger: Stranger, stream: str, how: str
) -> None:
    store = await replica(nats_server, patience=0.4)
    await store.create(new_run())
    claim = await soon(first_claim(store, {"agent"}))
    await store.append(claim, frame(1))
    if how == "deleted":
        await stranger.request(f"STREAM.DELETE.{stream}")
    elif how == "sealed":
        await stranger.change(stream, sealed=True)
    else:
        await stranger.change(stream, max_bytes=10)
    only_the_ports(await everything(store, claim, 2))
    await soon(store.close())


@asynccontextmanager
async def configured(folder: Path, text: str) -> AsyncIterator[tuple[NatsServer, NatsStore]]:
    config = folder / "nats.conf"
    config.write_text(text)
    with NatsServer(folder, "--config", str(config)) as server:
        address = Endpoint(servers=(f"nats://me:pw@127.0.0.1:{server.port}",), patience=0.4)
        store = await NatsStore.open(address, claim_timeout=1.0)
        try:
            yield server, store
        finally:
            await soon(store.close())


ACCOUNT = """
accounts {{ A {{ users: [{{ user: me, password: pw{user} }}], jetstream {account} }} }}
max_payload: {payload}
"""


@pytest.mark.parametrize(
    "limits",
    [
        {"account": "{ max_file: 300K }"},
        {"payload": "200K"},
        {"user": ', permissions: { publish: { deny: ["polos.log.>", "$JS.API.DIRECT.>"] } }'},
        {"user": ', permissions: { publish: { deny: ["$JS.API.STREAM.MSG.GET.>"] } }'},
        {"user": ', permissions: { subscribe: { deny: ["polos.>"] } }'},
    ],
)
async def test_limits_of_an_account_and_missing_permissions_are_told_in_the_ports_words(
    tmp_path: Path, limits: dict[str, str]
) -> None:
    plain = {"account": "enabled", "payload": "8MB", "user": ""}
    async with configured(tmp_path, ACCOUNT.format(**plain)) as (server, store):
        claim = await claimed(store)
        await store.append(claim, frame(1))
        (tmp_path / "nats.conf").write_text(ACCOUNT.format(**{**plain, **limits}))
        server.tell(signal.SIGHUP)
        first = 2
        with pytest.raises(StoreUnavailable):
            while first < 9999:
                await soon(store.append(claim, frame(first, data=b"x" * 250_000)))
                first += 1
                await store.get("default", claim.run_id)
                if "subscribe" in limits.get("user", ""):
                    raise StoreUnavailable("nothing that is asked for needs it")
        only_the_ports([*await everything(store, claim, first), StoreUnavailable("")])


async def test_a_consumer_that_is_deleted_is_made_again(
    one: NatsStore, wire: Wire, wired: NatsStore, stranger: Stranger
) -> None:
    claiming = asyncio.create_task(first_claim(wired, {"agent"}))
    await until(lambda: bool(wire.requests("CONSUMER.MSG.NEXT")))
    await stranger.request(f"CONSUMER.DELETE.{WORK}.agent")
    run_id = await one.create(new_run())
    assert (await soon(claiming)).run_id == run_id


async def test_an_answer_that_does_not_come_from_jetstream_is_as_good_as_none(
    one: NatsStore, stranger: Stranger
) -> None:
    claim = await claimed(one)
    lies = (b"garbage", b"[]", b'{"seq": "x"}', b'{"error": 7}', b'{"error": {}}')
    await stranger.answer(log_subject("default", claim.run_id), lies)
    await soon(one.append(claim, frame(1)))
    await soon(one.append(claim, frame(2, outcome=COMPLETED)))
    assert await spans(one, claim) == [(1, 1), (2, 2)]


@pytest.mark.parametrize("stream", [LOG, WORK, RUNS, "KV_POLOS_REQUESTS"])
async def test_health_misses_a_stream_and_says_so_once(
    one: NatsStore, nats_server: NatsServer, stranger: Stranger, stream: str
) -> None:
    assert await one.healthy()
    await stranger.request(f"STREAM.DELETE.{stream}")
    with capture_logs() as logs:
        assert not await one.healthy()
        assert not await one.healthy()
    assert [entry["event"] for entry in logs] == ["nats_cannot_be_used"]
    assert stream in logs[0]["problem"] or "not found" in logs[0]["problem"]
    await NatsStore.close(await NatsStore.open(nats_server.address()))
    assert await one.healthy()


async def test_health_sees_a_sealed_log_and_a_jetstream_that_is_off(
    one: NatsStore, stranger: Stranger, tmp_path: Path
) -> None:
    await stranger.change(LOG, sealed=True)
    assert not await one.healthy()
    other = tmp_path / "off"
    other.mkdir()
    async with configured(other, ACCOUNT.format(account="enabled", payload="8MB", user="")) as (
        server,
        store,
    ):
        assert await store.healthy()
        (other / "nats.conf").write_text(ACCOUNT.format(account="disabled", payload="8MB", user=""))
        server.tell(signal.SIGHUP)
        async with asyncio.timeout(20):
            while await store.healthy():
                await asyncio.sleep(0.05)
