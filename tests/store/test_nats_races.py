"""What holds for NATS replicas that race, are stopped half-way, or hear an old leader."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from polos_client.errors import RequestIdReused, RunNotFound, StoreUnavailable
from polos_service.errors import Fenced
from polos_service.store.nats import NatsStore
from polos_service.store.nats.subjects import log_subject
from tests.support.nats import NatsServer
from tests.support.stores import COMPLETED, cancel, claimed, ended, frame, new_run, soon, until


class Stopped:
    """A method that stops before it begins, as if its process were stopped there."""

    def __init__(self, target: object, name: str, patch: pytest.MonkeyPatch) -> None:
        self._real: Callable[..., Any] = getattr(target, name)
        self.reached, self.go_on = asyncio.Event(), asyncio.Event()
        patch.setattr(target, name, self)

    async def __call__(self, *args: Any, **named: Any) -> Any:
        self.reached.set()
        await self.go_on.wait()
        return await self._real(*args, **named)


async def test_an_item_stays_though_an_old_leader_says_that_there_is_no_run(
    one: NatsStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = one._records.find
    looks: list[object] = []

    async def find(*key: str) -> object:
        looks.append(key)
        return None if len(looks) == 1 else await real(*key)

    run_id = await one.create(new_run())
    monkeypatch.setattr(one._records, "find", find)
    assert (await soon(one.claim({"agent"}))).run_id == run_id


async def test_an_item_of_a_run_that_is_gone_is_removed(
    one: NatsStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("polos_service.store.nats.records.LOOK_PAUSE", 0.01)
    run_id = await one.create(new_run())
    await one._records.drop(await one._records.get("default", run_id))
    claiming = asyncio.create_task(one.claim({"agent"}))
    async with asyncio.timeout(60):
        while await one.waiting():
            await asyncio.sleep(0.01)
    claiming.cancel()


async def test_a_replica_stopped_before_its_first_claim_takes_no_run_that_was_removed_since(
    one: NatsStore, other: NatsStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_id = await other.create(new_run())
    with monkeypatch.context() as patch:
        stopped = Stopped(other._log, "append", patch)
        claiming = asyncio.create_task(other._claims.take_run("default", run_id, force=False))
        await soon(stopped.reached.wait())
        claim = await one.claim_run("default", run_id)
        assert claim is not None
        await one.append(claim, frame(1, outcome=COMPLETED))
        await one.delete("default", run_id)
        stopped.go_on.set()
        assert await soon(claiming) is None, "its steps would be run again"


async def test_a_deletion_that_goes_on_late_spares_the_run_that_a_repeated_start_made(
    one: NatsStore, other: NatsStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = await ended(one, request_id="r")
    stopped = Stopped(one._records, "strip", monkeypatch)
    deleting = asyncio.create_task(one.delete("default", old.run_id))
    await soon(stopped.reached.wait())
    new = await other.create(new_run(request_id="r"))
    stopped.go_on.set()
    await soon(deleting)
    claim = await soon(other.claim({"agent"}))
    assert (claim.run_id, claim.definition) == (new, b"definition")
    assert await other.create(new_run(request_id="r")) == new, "its request id is still known"
    with pytest.raises(RequestIdReused):
        await other.create(new_run(request_id="r", digest=b"other"))
    with pytest.raises(RunNotFound):
        await other.get("default", old.run_id)


async def test_a_run_is_not_begun_with_half_a_definition(one: NatsStore) -> None:
    run_id = await one.create(new_run(definition=b"whole"))
    record = await one._records.get("default", run_id)
    await one._records.strip(record)
    with pytest.raises(StoreUnavailable, match=f"piece 0 .* of run {run_id}"):
        await one.claim_run("default", run_id)


async def test_a_claim_that_came_back_here_ends_the_one_that_was_lost_here(
    one: NatsStore, other: NatsStore
) -> None:
    await one.create(new_run())
    first = await soon(one.claim({"agent"}))
    held = one._claims.find(first)
    assert held is not None
    assert held.item is not None
    obeying = asyncio.create_task(one.commands(first, 0))
    assert await other._claims.take(replace(held.item, delivery=2)) is not None
    assert await one._claims.take(replace(held.item, delivery=3)) is not None
    with pytest.raises(Fenced):
        await soon(obeying)


async def test_a_reader_is_not_left_with_a_tail_that_was_retired_before_it_waits(
    one: NatsStore,
) -> None:
    claim = await claimed(one)
    tail = await one._feeds.of("default", claim.run_id)
    one._feeds.forget(("default", claim.run_id))
    await asyncio.wait_for(one._feeds.wait(tail, 0), 5)


async def test_a_run_that_expired_before_its_deadline_is_not_asked_about_for_ever(
    one: NatsStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = time.time_ns()
    claim = await ended(one, deadline=now + 10**12)
    await one.create(new_run(deadline=now + 10**12))
    await one._listing.overdue(now, 0)
    record = await one._records.get("default", claim.run_id)
    await one._queue.put(record)
    await one._listing.overdue(now, 0)
    assert await one.expire(time.time_ns())
    assert claim.run_id not in [run_id for _, run_id in await one.overdue(now + 2 * 10**12, 0)]
    assert claim.run_id not in [run_id for *_, run_id in one._listing._due]


async def test_a_command_is_heard_of_only_when_it_was_stored(
    one: NatsStore, other: NatsStore
) -> None:
    claim = await claimed(one)
    heard: list[tuple[object, bool]] = []
    done = asyncio.Event()

    async def hear(message: Any) -> None:
        heard.append((message.subject, "Nats-Sequence" in (message.headers or {})))
        done.set()

    (news,) = [
        sub for sub in one._jetstream._connection._subs.values() if sub._cb == one._commanded
    ]
    await one._jetstream.subscribe(news._subject, hear)
    await other.command("default", claim.run_id, cancel(claim.run_id))
    await soon(done.wait())
    assert [stored for _, stored in heard] == [True]


async def test_what_a_lost_connection_may_have_swallowed_is_asked_for_again(
    one: NatsStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    claim = await claimed(one)
    for number in range(1, 4):
        await one.append(claim, frame(number))
    client = one._jetstream._connection
    inbox = client.new_inbox
    asked: list[str] = []

    def asking() -> str:
        if not asked:
            client.stats["reconnects"] += 1
        asked.append(inbox())
        return asked[-1]

    monkeypatch.setattr(client, "new_inbox", asking)
    subject = log_subject("default", claim.run_id)
    assert len(await soon(one._jetstream.page("POLOS_LOG", subject, 1))) == 4
    assert len(asked) == 2


async def test_what_is_asked_while_nats_is_away_leaves_nothing_behind(
    nats_server: NatsServer,
) -> None:
    store = await NatsStore.open(nats_server.address(0.3))
    claim = await claimed(store)
    client = store._jetstream._connection
    await until(lambda: not client._pending_data_size)
    await asyncio.to_thread(nats_server.stop)
    await until(lambda: not client.is_connected)
    before = client._pending_data_size
    with pytest.raises(StoreUnavailable):
        await store.append(claim, frame(1))
    with pytest.raises(StoreUnavailable):
        await store.read("default", claim.run_id, 0, 1)
    assert client._pending_data_size == before, "it would be sent when nobody waits for it"
    assert not client._resp_map
    await soon(store.close())


async def test_a_request_that_nats_refuses_is_told_as_the_port_has_it(
    one: NatsStore,
) -> None:
    await one._jetstream.request("STREAM.DELETE.POLOS_WORK")
    with pytest.raises(StoreUnavailable, match="stream not found"):
        await soon(one.waiting())
