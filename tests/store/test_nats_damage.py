"""Logs in NATS that lack something: they fail their own run only, which can still be ended."""

from __future__ import annotations

import pytest

from polos.v1.run_pb2 import RunState
from polos_client.errors import StoreUnavailable
from polos_service.store import RunQuery
from polos_service.store.nats import NatsStore
from polos_service.store.nats.frames import HEADER
from polos_service.store.nats.subjects import log_subject
from tests.support.nats_stranger import Stranger
from tests.support.nats_wire import Wire, published
from tests.support.stores import ALL, COMPLETED, cancel, claimed, frame, history, soon


@pytest.mark.parametrize("kind", ["lost", "short"])
async def test_a_damaged_log_fails_its_own_run_only_which_can_still_end(
    wire: Wire, wired: NatsStore, other: NatsStore, stranger: Stranger, kind: str
) -> None:
    claim = await claimed(wired)
    await wired.append(claim, frame(1))
    if kind == "short":
        wire.change(published("polos.log."), b"short")
    await wired.append(claim, frame(2, data=b"x" * 1000))
    await wired.append(claim, frame(3))
    if kind == "lost":
        stored = await stranger.stored("POLOS_LOG", log_subject("default", claim.run_id))
        await stranger.delete("POLOS_LOG", stored[2]["seq"])
    for store in (wired, other):
        with pytest.raises(StoreUnavailable, match="Restore the stream"):
            await history(store, claim)
        with pytest.raises(StoreUnavailable):
            await store.read("default", claim.run_id, 1, ALL)
    neighbour = await claimed(other)
    await other.append(neighbour, frame(1, outcome=COMPLETED))
    assert len(await other.list("default", RunQuery(limit=99))) == 2
    await wired.release(claim, failed=True)
    await other.command("default", claim.run_id, cancel(claim.run_id))
    again = await soon(other.claim_run("default", claim.run_id))
    assert again is not None
    assert (again.latest, again.commands) == (3, (cancel(claim.run_id),))
    await other.append(again, frame(4, outcome=RunState.RUN_STATE_CANCELLED))
    assert (await wired.get("default", claim.run_id)).state == RunState.RUN_STATE_CANCELLED
    await wired.delete("default", claim.run_id)


async def test_a_log_whose_last_head_is_destroyed_is_taken_up_and_ended(
    one: NatsStore, other: NatsStore, stranger: Stranger
) -> None:
    claim = await claimed(one)
    await one.append(claim, frame(1))
    subject = log_subject("default", claim.run_id)
    last = (await stranger.stored("POLOS_LOG", subject))[-1]
    await stranger.delete("POLOS_LOG", last["seq"])
    await stranger.store(subject, last["data"].encode(), {HEADER: "1 1 broken"})
    again = await soon(other.claim_run("default", claim.run_id, force=True))
    assert again is not None
    await other.append(again, frame(again.latest + 1, outcome=RunState.RUN_STATE_FAILED))
    assert (await one.get("default", claim.run_id)).state == RunState.RUN_STATE_FAILED
    await one.delete("default", claim.run_id)
