"""Logs that lack something, and runs that nobody ends."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

from polos.v1.run_pb2 import RunState
from polos_client.errors import StoreUnavailable
from polos_service.errors import Fenced
from polos_service.store import Claim, RunQuery
from polos_service.store.nats import NatsStore
from polos_service.store.nats.frames import HEADER
from polos_service.store.nats.records import Life
from polos_service.store.nats.subjects import LOG, WORK, log_subject
from tests.support.nats import NatsServer
from tests.support.nats_stranger import Stranger
from tests.support.stores import (
    ALL,
    COMPLETED,
    cancel,
    claimed,
    ended,
    frame,
    history,
    new_run,
    soon,
    spans,
)

FAILED = RunState.RUN_STATE_FAILED
LIST = RunQuery(limit=99)


async def lose(store: NatsStore, run_id: str, event: int) -> None:
    """Delete the message of an event, as an operator does who must not."""
    held = log_subject("default", run_id)
    number = 1
    while True:
        message = await store._jetstream.next(LOG, held, number)
        assert message is not None
        if message.headers[HEADER].startswith(f"{event} {event} "):
            break
        number = message.sequence + 1
    await store._jetstream.request(f"STREAM.MSG.DELETE.{LOG}", {"seq": message.sequence})


async def cut_short(store: NatsStore, claim: Claim, event: int) -> None:
    """Append a frame that lacks its end."""
    held = store._claims.find(claim)
    assert held is not None
    head = held.head("events", event, event, size=1000)  # type: ignore[arg-type]
    await store._claims._write(held, head, b"short")


async def behind_a_strangers_head(store: NatsStore, server: NatsServer, claim: Claim) -> None:
    """Have the last message's header destroyed."""
    async with Stranger(server) as stranger:
        last = await store._jetstream.last(LOG, log_subject("default", claim.run_id))
        assert last is not None
        await store._jetstream.request(f"STREAM.MSG.DELETE.{LOG}", {"seq": last.sequence})
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
    await other.command("default", claim.run_id, cancel(claim.run_id))
    again = await soon(other.claim_run("default", claim.run_id))
    assert again is not None
    assert (again.latest, again.commands) == (3, (cancel(claim.run_id),))
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
    obeying = asyncio.create_task(one.commands(old, 0))
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
        while (await one._jetstream.request(f"STREAM.INFO.{WORK}"))["state"]["messages"]:
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
    monkeypatch.setattr("polos_service.store.nats.upkeep.UNDER_WAY", -60)
    assert list(await other.overdue(time.time_ns(), 0)) == [("default", lost.run_id)]
    assert (await soon(other.claim({"agent"}))).run_id == lost.run_id


async def test_a_record_that_was_left_open_after_the_end_is_closed_and_expires(
    one: NatsStore, other: NatsStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    claim = await claimed(one)

    async def leave(*_: object) -> None:
        """Do nothing, as if it were lost."""

    with monkeypatch.context() as patch:
        patch.setattr(one._records, "finish", leave)
        await one.append(claim, frame(1, outcome=COMPLETED))
    assert (await other._records.get("default", claim.run_id)).life is Life.OPEN
    monkeypatch.setattr("polos_service.store.nats.upkeep.UNDER_WAY", -60)
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
    real = one._jetstream._direct

    async def counted(*args: Any) -> Any:
        page = await real(*args)
        pages.append(sum(len(message.data) for message in page.messages))
        return page

    monkeypatch.setattr(one._jetstream, "_direct", counted)
    found = await one.list("default", LIST)
    assert [run.latest for run in found] == [1] * 12
    assert max(pages) < 2 * 1024 * 1024
    assert sum(pages) > 12 * 400_000


async def test_an_ended_run_is_not_claimed_by_force(one: NatsStore) -> None:
    claim = await ended(one)
    assert await one.claim_run("default", claim.run_id, force=True) is None
    assert await one.claim_run("default", "none", force=True) is None
