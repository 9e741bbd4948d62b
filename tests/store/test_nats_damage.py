"""Logs that lack something, runs that nobody ends, and a NATS that refuses or is half gone."""

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
from polos_service.store import CANCEL, Claim, RunQuery
from polos_service.store.nats import Address, NatsStore
from polos_service.store.nats.head import HEADER
from polos_service.store.nats.record import Life
from polos_service.store.nats.subjects import LOG, RUNS, WORK, log_subject
from tests.support.nats import NatsServer
from tests.support.nats_stranger import Stranger
from tests.support.stores import (
    ALL,
    COMPLETED,
    claimed,
    ended,
    frame,
    history,
    new_run,
    soon,
    spans,
    until,
)

FAILED = RunState.RUN_STATE_FAILED
LIST = RunQuery(limit=99)


async def replica(server: NatsServer, patience: float = 15.0) -> NatsStore:
    return await NatsStore.open(server.address(patience), claim_timeout=1.0)


@pytest.fixture
async def one(nats_server: NatsServer) -> AsyncIterator[NatsStore]:
    store = await replica(nats_server)
    yield store
    await store.close()


@pytest.fixture
async def other(one: NatsStore, nats_server: NatsServer) -> AsyncIterator[NatsStore]:
    store = await replica(nats_server)
    yield store
    await store.close()


async def lose(store: NatsStore, run_id: str, event: int) -> None:
    """Delete the message of an event, as an operator does who must not."""
    held = log_subject("default", run_id)
    number = 1
    while True:
        message = await store._link.next(LOG, held, number)
        assert message is not None
        if message.headers[HEADER].startswith(f"{event} {event} "):
            break
        number = message.sequence + 1
    await store._link.request(f"STREAM.MSG.DELETE.{LOG}", {"seq": message.sequence})


async def cut_short(store: NatsStore, claim: Claim, event: int) -> None:
    """Append a frame that lacks its end."""
    held = store._claims.find(claim)
    assert held is not None
    head = held.head("events", event, event, size=1000)  # type: ignore[arg-type]
    await store._claims._write(held, head, b"short")


async def behind_a_strangers_head(store: NatsStore, server: NatsServer, claim: Claim) -> None:
    """Have the last message's header destroyed."""
    async with Stranger(server) as stranger:
        last = await store._link.last(LOG, log_subject("default", claim.run_id))
        assert last is not None
        await store._link.request(f"STREAM.MSG.DELETE.{LOG}", {"seq": last.sequence})
        await stranger.store(last.subject, last.data, {HEADER: last.headers[HEADER] + " broken"})


@pytest.mark.parametrize("kind", ["lost", "short"])
async def test_a_damaged_log_fails_its_own_run_only_which_can_still_end(
    one: NatsStore, other: NatsStore, kind: str
) -> None:
    claim = await claimed(one)
    await one.append(claim, frame(1))
    if kind == "lost":
        await one.append(claim, frame(2))
        await one.append(claim, frame(3))
        await lose(one, claim.run_id, 2)
    else:
        await cut_short(one, claim, 2)
        await one.append(claim, frame(3))
    for store in (one, other):
        with pytest.raises(StoreUnavailable, match="Restore the stream"):
            await history(store, claim)
        with pytest.raises(StoreUnavailable):
            await store.read("default", claim.run_id, 1, ALL)
    neighbour = await claimed(other)
    await other.append(neighbour, frame(1, outcome=COMPLETED))
    assert len(await other.list("default", LIST)) == 2
    await one.release(claim, failed=True)
    await other.command("default", claim.run_id, CANCEL)
    again = await soon(other.claim_run("default", claim.run_id))
    assert again is not None
    assert (again.latest, again.commands) == (3, frozenset({CANCEL}))
    await other.append(again, frame(4, outcome=RunState.RUN_STATE_CANCELLED))
    assert (await one.get("default", claim.run_id)).state == RunState.RUN_STATE_CANCELLED
    await one.delete("default", claim.run_id)


async def test_a_log_whose_last_head_is_destroyed_is_taken_up_and_ended(
    one: NatsStore, other: NatsStore, nats_server: NatsServer
) -> None:
    claim = await claimed(one)
    await one.append(claim, frame(1))
    await behind_a_strangers_head(one, nats_server, claim)
    again = await soon(other.claim_run("default", claim.run_id, force=True))
    assert again is not None
    await other.append(again, frame(again.latest + 1, outcome=FAILED))
    assert (await one.get("default", claim.run_id)).state == FAILED
    await one.delete("default", claim.run_id)


async def test_a_held_run_is_taken_from_its_holder_by_force(
    one: NatsStore, other: NatsStore
) -> None:
    await one.create(new_run(workflow_id="rare"))
    old = await soon(one.claim({"rare"}))
    await one.append(old, frame(1))
    obeying = asyncio.create_task(one.commands(old, frozenset()))
    assert await other.claim_run("default", old.run_id) is None
    new = await other.claim_run("default", old.run_id, force=True)
    assert new is not None
    assert (new.epoch, new.latest) == (old.epoch + 1, 1)
    with pytest.raises(Fenced):
        await one.append(old, frame(2))
    with pytest.raises(Fenced):
        await soon(obeying)
    await one.release(old)
    await other.append(new, frame(2, outcome=FAILED))
    assert await spans(one, new) == [(1, 1), (2, 2)]
    assert await other.claim_run("default", old.run_id, force=True) is None
    async with asyncio.timeout(20):
        while (await one._link.request(f"STREAM.INFO.{WORK}"))["state"]["messages"]:
            await asyncio.sleep(0.02)


async def test_a_run_is_taken_by_force_while_its_holder_appends(
    one: NatsStore, other: NatsStore
) -> None:
    old = await claimed(one)

    async def write() -> int:
        number = 0
        while True:
            await one.append(old, frame(number + 1))
            number += 1

    writing = asyncio.create_task(write())
    new = await soon(other.claim_run("default", old.run_id, force=True))
    assert new is not None
    with pytest.raises(Fenced):
        await soon(writing)
    await other.append(new, frame(new.latest + 1, outcome=FAILED))
    assert await spans(one, new) == [(n, n) for n in range(1, new.latest + 2)]


async def test_a_run_that_this_replica_holds_is_taken_from_itself(one: NatsStore) -> None:
    old = await claimed(one)
    new = await one.claim_run("default", old.run_id, force=True)
    assert new is not None
    with pytest.raises(Fenced):
        await one.append(old, frame(1))
    await one.append(new, frame(1, outcome=FAILED))


async def test_held_runs_are_overdue_when_their_deadline_is_long_past(
    one: NatsStore, other: NatsStore
) -> None:
    now = time.time_ns()
    held = await claimed(one, deadline=now)
    await other.create(new_run(workflow_id="rare", deadline=now))
    by_item = await soon(other.claim({"rare"}))
    open_end = await claimed(one)
    later = now + 30 * 10**9
    assert await other.overdue(later, now - 1) == []
    both = {("default", held.run_id), ("default", by_item.run_id)}
    assert set(await one.overdue(later, now)) == both, "a replica that starts now finds them"
    assert set(await other.overdue(later + 10**10, now)) == both
    assert ("default", open_end.run_id) not in await one.overdue(later + 10**15, later)


async def test_a_release_tells_in_the_log_whether_the_claim_failed(one: NatsStore) -> None:
    claim = await claimed(one)
    await one.release(claim, failed=True)
    again = await one.claim_run("default", claim.run_id)
    assert again is not None
    await one.release(again)
    last = await one.claim_run("default", claim.run_id)
    assert last is not None
    marks = [entry.private for entry in await history(one, last)]
    assert [mark for mark in marks if b"released" in mark] == [
        b'{"released": {"epoch": 1, "failed": true}}\n',
        b'{"released": {"epoch": 2}}\n',
    ]


async def test_a_start_that_crashed_before_the_queue_is_queued_by_whoever_finds_it(
    one: NatsStore, other: NatsStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    lost = new_run(deadline=time.time_ns())
    await one._records.create(lost)
    assert await other.overdue(time.time_ns(), 0) == [], "it may be on its way"
    monkeypatch.setattr("polos_service.store.nats.sweep.SETTLED", -60)
    assert list(await other.overdue(time.time_ns(), 0)) == [("default", lost.run_id)]
    assert (await soon(other.claim({"agent"}))).run_id == lost.run_id


async def test_a_record_that_was_left_open_after_the_end_is_closed_and_expires(
    one: NatsStore, other: NatsStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    claim = await claimed(one)

    async def leave(*_: object) -> None:
        """Do nothing, as if it were lost."""

    with monkeypatch.context() as patch:
        patch.setattr(one._claims, "finish", leave)
        await one.append(claim, frame(1, outcome=COMPLETED))
    assert (await other._records.get("default", claim.run_id)).life is Life.OPEN
    monkeypatch.setattr("polos_service.store.nats.sweep.SETTLED", -60)
    await other.overdue(time.time_ns(), 0)
    assert (await other._records.get("default", claim.run_id)).life is Life.ENDED
    assert await other.expire(time.time_ns())


async def test_lists_read_large_frames_a_piece_at_a_time(
    one: NatsStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = [await claimed(one) for _ in range(12)]
    for claim in runs:
        await one.append(claim, frame(1, data=b"x" * 400_000))
    pages: list[int] = []
    real = one._link._page

    async def counted(*args: Any) -> Any:
        page = await real(*args)
        pages.append(sum(len(message.data) for message in page.messages))
        return page

    monkeypatch.setattr(one._link, "_page", counted)
    found = await one.list("default", LIST)
    assert [run.latest for run in found] == [1] * 12
    assert max(pages) < 2 * 1024 * 1024
    assert sum(pages) > 12 * 400_000


async def briefly(call: Awaitable[Any]) -> None:
    """Await what may take for ever; how it fails in a second is what is looked at."""
    task = asyncio.ensure_future(call)
    await asyncio.wait({task}, timeout=1)
    task.cancel()
    await asyncio.wait({task})
    if not task.cancelled():
        task.result()


async def append_next(store: NatsStore, claim: Claim) -> None:
    held = store._claims.find(claim)
    if held is not None:
        await store.append(claim, frame(held.latest + 1, data=b"x" * 1000))


async def everything(store: NatsStore, claim: Claim) -> list[BaseException | None]:
    """Call every method of the port; return what each raises."""
    now, run_id = time.time_ns(), claim.run_id
    calls: list[Callable[[], Awaitable[Any]]] = [
        lambda: store.create(new_run(request_id="again")),
        lambda: store.create(new_run(definition=b"x" * 3_000_000)),
        lambda: briefly(store.claim({"agent"})),
        lambda: store.claim_run("default", run_id),
        lambda: store.claim_run("default", run_id, force=True),
        lambda: store.overdue(now, now),
        store.waiting,
        lambda: append_next(store, claim),
        lambda: store.read("default", run_id, 0, ALL),
        lambda: briefly(store.wait("default", run_id, 1 << 40)),
        lambda: history(store, claim),
        lambda: store.command("default", run_id, CANCEL),
        lambda: briefly(store.commands(replace(claim, epoch=99), {CANCEL})),
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
    nats_server: NatsServer, stream: str, how: str
) -> None:
    store = await replica(nats_server, patience=0.4)
    await store.create(new_run())
    claim = await soon(store.claim({"agent"}))
    await store.append(claim, frame(1))
    config = (await store._link.request(f"STREAM.INFO.{stream}"))["config"]
    if how == "deleted":
        await store._link.request(f"STREAM.DELETE.{stream}")
    elif how == "sealed":
        await store._link.request(f"STREAM.UPDATE.{stream}", {**config, "sealed": True})
    else:
        await store._link.request(f"STREAM.UPDATE.{stream}", {**config, "max_bytes": 10})
    only_the_ports(await everything(store, claim))
    await soon(store.close())


@asynccontextmanager
async def configured(folder: Path, text: str) -> AsyncIterator[tuple[NatsServer, NatsStore]]:
    config = folder / "nats.conf"
    config.write_text(text)
    with NatsServer(folder, "--config", str(config)) as server:
        address = Address(servers=(f"nats://me:pw@127.0.0.1:{server.port}",), patience=0.4)
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
        with pytest.raises(StoreUnavailable):
            for number in range(2, 9999):
                await soon(store.append(claim, frame(number, data=b"x" * 250_000)))
                await store.get("default", claim.run_id)
                if "subscribe" in limits.get("user", ""):
                    raise StoreUnavailable("nothing that is asked for needs it")
        only_the_ports([*await everything(store, claim), StoreUnavailable("")])


async def test_a_consumer_that_is_deleted_is_made_again(one: NatsStore) -> None:
    claiming = asyncio.create_task(one.claim({"agent"}))
    await until(lambda: "agent" in one._work._answers)
    await one._link.request(f"CONSUMER.DELETE.{WORK}.agent")
    run_id = await one.create(new_run())
    assert (await soon(claiming)).run_id == run_id


async def test_an_answer_that_does_not_come_from_jetstream_is_as_good_as_none(
    one: NatsStore, other: NatsStore
) -> None:
    claim = await claimed(one)

    async def mislead(message: Any) -> None:
        for answer in (b"garbage", b"[]", b'{"seq": "x"}', b'{"error": 7}', b'{"error": {}}'):
            await other._link._client.publish(message.reply, answer)

    await other._link.subscribe(log_subject("default", claim.run_id), mislead)
    await soon(one.append(claim, frame(1)))
    await soon(one.append(claim, frame(2, outcome=COMPLETED)))
    assert await spans(one, claim) == [(1, 1), (2, 2)]


@pytest.mark.parametrize("stream", [LOG, WORK, RUNS, "KV_POLOS_REQUESTS"])
async def test_health_misses_a_stream_and_says_so_once(one: NatsStore, stream: str) -> None:
    assert await one.healthy()
    await one._link.request(f"STREAM.DELETE.{stream}")
    with capture_logs() as logs:
        assert not await one.healthy()
        assert not await one.healthy()
    assert [entry["event"] for entry in logs] == ["nats_cannot_be_used"]
    assert stream in logs[0]["problem"] or "not found" in logs[0]["problem"]
    await NatsStore.close(await NatsStore.open(one._link._address))
    assert await one.healthy()


async def test_health_sees_a_sealed_log_and_a_jetstream_that_is_off(
    one: NatsStore, nats_server: NatsServer, tmp_path: Path
) -> None:
    config = (await one._link.request(f"STREAM.INFO.{LOG}"))["config"]
    await one._link.request(f"STREAM.UPDATE.{LOG}", {**config, "sealed": True})
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


async def test_an_ended_run_is_not_claimed_by_force(one: NatsStore) -> None:
    claim = await ended(one)
    assert await one.claim_run("default", claim.run_id, force=True) is None
    assert await one.claim_run("default", "none", force=True) is None
