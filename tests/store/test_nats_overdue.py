"""How the NATS store finds runs that should have ended, and what that costs."""

from __future__ import annotations

import time

import pytest

from polos_client.errors import StoreUnavailable
from polos_service.runs.frame import SECOND
from polos_service.store import CANCEL
from polos_service.store.nats import NatsStore
from polos_service.store.nats.subjects import inbox_subject
from tests.support.nats_stranger import Stranger
from tests.support.nats_wire import Wire, asked
from tests.support.stores import COMPLETED, cancel, claimed, ended, frame, new_run

BUCKET = "KV_POLOS_COMMANDS"


async def overdue(store: NatsStore, later: int = 0) -> list[str]:
    """Return the ids of the runs that are overdue so many seconds from now, held ones too."""
    now = time.time_ns() + later * SECOND
    return [one.run_id for one in await store.overdue(now, now)]


async def test_a_cancellation_that_a_replica_of_0_1_0_put_there_is_found(
    one: NatsStore, stranger: Stranger
) -> None:
    run_id = await one.create(new_run(project="läufe.>*"))
    await stranger.store(inbox_subject("läufe.>*", run_id), b'["cancel"]')
    (found,) = await one.overdue(time.time_ns(), 0)
    assert (found.project, found.run_id, found.held) == ("läufe.>*", run_id, False)


async def test_the_cancellation_of_a_run_that_has_ended_is_removed(
    one: NatsStore, stranger: Stranger
) -> None:
    claim = await claimed(one)
    open_run = await one.create(new_run())
    for run_id in (claim.run_id, open_run):
        await one.command("default", run_id, cancel(run_id))
    await one.append(claim, frame(1, outcome=COMPLETED))
    assert await overdue(one) == [open_run]
    assert await stranger.last(BUCKET, inbox_subject("default", claim.run_id)) is None
    assert await stranger.last(BUCKET, inbox_subject("default", open_run)) is not None


async def test_a_replica_that_starts_does_not_ask_about_cancelled_runs_that_have_ended(
    wire: Wire, wired: NatsStore, one: NatsStore, stranger: Stranger
) -> None:
    over = [await ended(one) for _ in range(3)]
    for claim in over:
        await stranger.store(inbox_subject("default", claim.run_id), b'["cancel"]')
    assert await overdue(one) == []
    assert await overdue(wired) == []
    about = [one.payload for one in wire.sent if b"multi_last" in one.payload]
    assert about == []


async def test_a_run_is_looked_at_again_when_a_look_failed(wire: Wire, hasty: NatsStore) -> None:
    due = await hasty.create(new_run(deadline=time.time_ns()))
    cancelled = await hasty.create(new_run())
    await hasty.command("default", cancelled, cancel(cancelled))
    lost = wire.lose(asked("DIRECT.GET.POLOS_LOG"))
    with pytest.raises(StoreUnavailable):
        await overdue(hasty)
    lost.end()
    assert await overdue(hasty) == [], "not before a while"
    assert {*await overdue(hasty, later=10)} == {due, cancelled}


async def test_foreign_messages_are_nobodys_cancellation(
    one: NatsStore, stranger: Stranger
) -> None:
    claim = await claimed(one)
    bucket = "$KV.POLOS_COMMANDS"
    for subject in (f"{bucket}.default.=!", f"{bucket}.default.=ME"):  # no value has this token
        await stranger.store(subject, b'["cancel"]')
    await stranger.store(f"{bucket}.default.{claim.run_id}", b'["pause"]')
    heading = b'{"id":"cancel","kind":"x","run_id":"r","step_key":"","count":1,"size":0}\n'
    await stranger.store(f"{bucket}.default.{claim.run_id}.{CANCEL}", heading)
    assert await overdue(one) == []
    await one.command("default", claim.run_id, cancel(claim.run_id))
    assert list(await one.commands(claim, 0)) == [cancel(claim.run_id)]
    assert await overdue(one, later=10) == [claim.run_id]
