"""Messages of strangers under the service's subjects: skipped, counted, and in nobody's way."""

from __future__ import annotations

import asyncio
import time

import orjson
import pytest
from structlog.testing import capture_logs

from polos.v1.run_pb2 import RunState
from polos_client.errors import RunNotFound
from polos_service.errors import Fenced
from polos_service.store import RunQuery
from polos_service.store.nats import NatsStore
from polos_service.store.nats.subjects import (
    WORK,
    inbox_subject,
    log_subject,
    run_subject,
    work_subject,
)
from tests.support.nats import NatsServer
from tests.support.nats_stranger import GARBAGE, RAW, Stranger, works
from tests.support.nats_wire import Wire
from tests.support.stores import (
    ALL,
    COMPLETED,
    claimed,
    ended,
    first_claim,
    frame,
    history,
    new_run,
    soon,
    spans,
    until,
)

LIST = RunQuery(limit=99)

every_kind = pytest.mark.parametrize("kind", GARBAGE)


@every_kind
async def test_a_log_goes_on_among_foreign_messages(
    one: NatsStore, other: NatsStore, stranger: Stranger, kind: str
) -> None:
    run_id = await one.create(new_run())
    subject = log_subject("default", run_id)
    await stranger.store(subject, *GARBAGE[kind])
    first = await soon(first_claim(one, {"agent"}))
    assert (first.epoch, first.latest) == (1, 0)
    waiting = asyncio.create_task(other.wait("default", run_id, 0))
    await stranger.store(subject, *GARBAGE[kind])
    await one.append(first, frame(1, 2, b"a"), b"private")
    await soon(waiting)
    await stranger.store(subject, *GARBAGE[kind])
    await one.append(first, frame(3, data=b"b"))
    await one.append(first, frame(4, data=b"c"))
    for _ in range(3):
        await stranger.store(subject, *GARBAGE[kind])
    await one.release(first)
    await stranger.store(subject, *GARBAGE[kind])
    second = await soon(other.claim_run("default", run_id))
    assert second is not None
    assert (second.epoch, second.latest) == (2, 4)
    await stranger.store(subject, *GARBAGE[kind])
    entries = [entry for entry in await soon(history(other, second)) if entry.data]
    assert [entry.data for entry in entries] == [b"a", b"b", b"c"]
    assert entries[0].private == b"private"
    assert await soon(spans(one, second)) == [(1, 2), (3, 3), (4, 4)]
    assert [part.data for part in (await soon(other.read("default", run_id, 3, ALL))).frames] == [
        b"c"
    ]
    with pytest.raises(Fenced):
        await one.append(first, frame(5))
    await other.append(second, frame(5, outcome=COMPLETED))
    await stranger.store(subject, *GARBAGE[kind])
    for store in (one, other):
        assert (await soon(store.get("default", run_id))).state == COMPLETED
        assert [run.run_id for run in await soon(store.list("default", LIST))] == [run_id]
    await one.delete("default", run_id)
    with pytest.raises(RunNotFound):
        await other.read("default", run_id, 0, ALL)


@every_kind
async def test_one_foreign_message_anywhere_stops_nobody(
    one: NatsStore, other: NatsStore, stranger: Stranger, nats_server: NatsServer, kind: str
) -> None:
    queued = await one.create(new_run(workflow_id="rare"))
    held = await claimed(one, workflow_id="held")
    past = await ended(one)
    day = "00000000"
    for subject in (
        *(log_subject("default", run_id) for run_id in (queued, held.run_id, past.run_id, "none")),
        "polos.log.x",
        f"polos.log.{day}.default.a.b",
        f"polos.log.{day}.=!.=1",
        work_subject("agent", "default", "none"),
        work_subject("agent", "default", past.run_id),
        "polos.work.x",
        "polos.work.agent.x",
        "polos.work.agent.default.x.y",
        "polos.work.agent.=!!.=1",
        "polos.work.=1.default.x",
        "polos.work.nobody.default.x",
        run_subject("default", "none"),
        f"$KV.POLOS_RUNS.{day}.default.a.b",
        f"$KV.POLOS_RUNS.{day}.default.=!",
        "$KV.POLOS_RUNS.x",
        "$KV.POLOS_REQUESTS.default.x",
        "$KV.POLOS_DEFINITIONS.x",
        inbox_subject("default", held.run_id),
        "$KV.POLOS_COMMANDS.x",
        "$KV.POLOS_COMMANDS.=!.=1",
        "$KV.POLOS_COMMANDS.a.b.c",
    ):
        await stranger.store(subject, *GARBAGE[kind])
    await works(one, other)
    third = await soon(NatsStore.open(nats_server.address()))
    await works(third)
    assert await third.waiting() == {"rare": 1}
    assert (await soon(third.get("default", queued))).run_id == queued
    await one.append(held, frame(1, outcome=COMPLETED))
    rare = await soon(first_claim(third, {"rare"}))
    await third.append(rare, frame(1, outcome=COMPLETED))
    await stranger.empties(WORK)
    removed = 0
    while await soon(third.expire(time.time_ns())):
        removed += 1
    assert removed == 6
    await third.close()


@pytest.mark.parametrize(
    "payload",
    [
        b'["default", "X", "tomorrow"]',
        b'["default", "X", 1.5]',
        b'["default", "X", true]',
        b'["default", "X", -1]',
        b'["default", "X", 99999999999999999999999]',
        b'["default", 7, null]',
        b'["default", "other", null]',
        b'["default", "X"]',
        b"[]",
        b"null",
    ],
)
async def test_a_work_item_of_wrong_types_is_removed(
    one: NatsStore, stranger: Stranger, payload: bytes
) -> None:
    for workflow in ("agent", "nobody"):
        await stranger.store(work_subject(workflow, "default", "X"), payload)
    await works(one)
    await stranger.empties(WORK)


async def test_an_item_of_a_run_that_does_not_exist_delays_nobody(
    one: NatsStore, stranger: Stranger
) -> None:
    for number in range(50):
        name = f"none-{number}"
        item = orjson.dumps(["default", name, None])
        await stranger.store(work_subject("agent", "default", name), item)
    began = time.monotonic()
    await works(one)
    assert time.monotonic() - began < 50, "each would be looked for during two seconds"
    await stranger.empties(WORK)


@pytest.mark.parametrize(("period", "entries"), [(60, 1), (0, 20)])
async def test_what_is_foreign_is_counted_once_and_logged_once_a_minute(
    period: float, entries: int, one: NatsStore, stranger: Stranger, monkeypatch: pytest.MonkeyPatch
) -> None:
    claim = await claimed(one)
    subject = log_subject("default", claim.run_id)
    monkeypatch.setattr("polos_service.store.nats.messages.LOG_PERIOD", period)
    with capture_logs() as logs:
        for _ in range(20):
            await stranger.store(subject)
        for _ in range(3):
            await one.list("default", LIST)
            await one.get("default", claim.run_id)
        await one.append(claim, frame(1))
    told = [entry for entry in logs if entry["log_level"] != "info"]
    assert {entry["event"] for entry in told} == {"foreign_messages_skipped"}
    assert [entry["count"] for entry in told] == list(range(1, entries + 1))
    assert told[0]["subject"] == subject


async def test_many_foreign_messages_are_looked_through_once(
    one: NatsStore, wire: Wire, wired: NatsStore, stranger: Stranger
) -> None:
    claim = await claimed(one)
    subject = log_subject("default", claim.run_id)
    await one.append(claim, frame(1))
    await asyncio.gather(*(stranger.store(subject) for _ in range(3000)))
    assert (await wired.get("default", claim.run_id)).latest == 1
    before = len(wire.sent)
    assert (await wired.get("default", claim.run_id)).latest == 1
    assert len(wire.sent) - before < 10
    await one.append(claim, frame(2))
    assert await soon(spans(wired, claim)) == [(1, 1), (2, 2)]


async def test_a_log_that_was_removed_is_not_remembered(
    one: NatsStore, other: NatsStore, stranger: Stranger
) -> None:
    claim = await claimed(one)
    subject = log_subject("default", claim.run_id)
    await stranger.store(subject)
    assert (await other.get("default", claim.run_id)).state == RunState.RUN_STATE_RUNNING
    await stranger.request("STREAM.PURGE.POLOS_LOG", {"filter": subject})
    await stranger.store(subject)
    assert (await other.get("default", claim.run_id)).state == RunState.RUN_STATE_QUEUED


async def test_garbage_on_subjects_that_are_listened_to_ends_no_connection(
    one: NatsStore, wire: Wire, wired: NatsStore, stranger: Stranger
) -> None:
    claim = await claimed(one, workflow_id="held")
    waiting = asyncio.create_task(wired.wait("default", claim.run_id, 0))
    news = "polos.new." + log_subject("default", claim.run_id).removeprefix("polos.log.")
    await until(lambda: news in wire.subscribed)
    claiming = asyncio.create_task(first_claim(wired, {"agent"}))
    await until(lambda: bool(wire.requests("CONSUMER.MSG.NEXT")))
    pulled = wire.requests("CONSUMER.MSG.NEXT")[0].reply
    subjects = [
        news,
        "polos.inbox.x",
        "polos.inbox.=!.=1",
        "polos.inbox.a.b.c",
        f"polos.inbox.default.{claim.run_id}",
        pulled,
        pulled.replace("agent", "none"),
        "polos.work.agent.default.x",
        "_INBOX.x.y",
    ]
    for subject in subjects:
        for payload, headers in GARBAGE.values():
            await stranger.publish(subject, payload, headers)
        for raw in RAW:
            await stranger.publish_raw(subject.encode(), raw)
    await stranger.publish_raw(b"polos.work.\xff.\xfe.x", b"NATS/1.0\r\n\r\n")
    await one.append(claim, frame(1))
    await soon(waiting)
    claiming.cancel()
    await works(one, wired)
    assert wire.connections == 1


async def test_headers_that_no_client_sends_stand_in_no_ones_way(
    one: NatsStore, other: NatsStore, stranger: Stranger
) -> None:
    claim = await claimed(one, workflow_id="held")
    for number, raw in enumerate(RAW, 1):
        await stranger.publish_raw(log_subject("default", claim.run_id).encode(), raw)
        await stranger.publish_raw(run_subject("default", "none").encode(), raw)
        await stranger.publish_raw(work_subject("agent", "default", f"{number}").encode(), raw)
        await one.append(claim, frame(number))
    assert [entry.data for entry in await soon(history(one, claim))][1:] == [b"x"] * len(RAW)
    assert len(await soon(spans(other, claim))) == len(RAW)
    await works(one, other)
    await one.append(claim, frame(len(RAW) + 1, outcome=COMPLETED))
    await stranger.empties(WORK)
