"""Messages of strangers in the buckets of NATS, in the place of ours or beside them."""

from __future__ import annotations

import asyncio
import json
import time

import orjson
import pytest

from polos_client.errors import RunNotFound, StoreUnavailable
from polos_service.store import RunQuery
from polos_service.store.nats import NatsStore
from polos_service.store.nats.subjects import (
    definition_subject,
    inbox_subject,
    request_subject,
    run_subject,
)
from tests.support.nats_stranger import GARBAGE, Stranger, works
from tests.support.stores import (
    COMPLETED,
    cancel,
    claimed,
    ended,
    first_claim,
    frame,
    new_run,
    soon,
)

LIST = RunQuery(limit=99)

every_kind = pytest.mark.parametrize("kind", GARBAGE)


GOOD_RECORD = {
    "project": "default",
    "run_id": "made",
    "workflow_id": "agent",
    "request_id": None,
    "digest": "",
    "pieces": 0,
    "session_id": None,
    "user_id": None,
    "streaming": True,
    "create_time": 1,
    "deadline": None,
    "life": "open",
    "outcome": 0,
    "latest": 0,
    "start_time": None,
    "finish_time": None,
}


@pytest.mark.parametrize(
    "changed",
    [
        {"life": "undead"},
        {"life": 7},
        {"life": "ended"},
        {"life": "ended", "outcome": 3},
        {"outcome": "3"},
        {"pieces": "many"},
        {"create_time": 10**30},
        {"create_time": -(10**30)},
        {"deadline": "tomorrow"},
        {"run_id": "other"},
        {"run_id": None},
        {"project": "other"},
        {"session_id": {"a": 1}},
        {"workflow_id": ["agent"]},
        {"streaming": "no"},
    ],
)
async def test_a_record_of_wrong_types_is_no_run(
    one: NatsStore, stranger: Stranger, changed: dict[str, object]
) -> None:
    await stranger.store(
        run_subject("default", "made"), json.dumps({**GOOD_RECORD, **changed}).encode()
    )
    with pytest.raises(RunNotFound):
        await one.get("default", "made")
    await works(one)
    assert len(await one.list("default", LIST)) == 1
    assert await one.expire(time.time_ns())


async def test_a_record_of_a_newer_version_is_read(one: NatsStore, stranger: Stranger) -> None:
    newer = orjson.dumps({**GOOD_RECORD, "labels": {"a": 1}, "v": 2})
    await stranger.store(run_subject("default", "made"), newer)
    assert (await one.get("default", "made")).run_id == "made"
    assert [run.run_id for run in await one.list("default", LIST)] == ["made"]


async def test_a_record_of_the_far_future_keeps_no_other_run_from_expiring(
    one: NatsStore, stranger: Stranger
) -> None:
    late = {**GOOD_RECORD, "life": "ended", "outcome": int(COMPLETED), "finish_time": 1 << 62}
    await stranger.store(run_subject("default", "made"), orjson.dumps(late))
    claim = await ended(one)
    while await one.expire(time.time_ns()):
        pass
    assert claim.run_id not in [run.run_id for run in await one.list("default", LIST)]


@every_kind
async def test_a_held_run_whose_record_is_overwritten_ends_and_is_listed_again(
    one: NatsStore, other: NatsStore, stranger: Stranger, kind: str
) -> None:
    claim = await claimed(one, workflow_id="held")
    await stranger.store(run_subject("default", claim.run_id), *GARBAGE[kind])
    await works(other)
    await one.append(claim, frame(1, outcome=COMPLETED))
    assert (await other.get("default", claim.run_id)).state == COMPLETED
    await other.delete("default", claim.run_id)


@every_kind
async def test_a_request_id_works_though_its_reservation_is_foreign(
    one: NatsStore, other: NatsStore, stranger: Stranger, kind: str
) -> None:
    await stranger.store(request_subject("default", "r"), *GARBAGE[kind])
    run_id = await one.create(new_run(request_id="r"))
    assert await other.create(new_run(request_id="r")) == run_id
    await stranger.store(request_subject("default", "r"), *GARBAGE[kind])
    claim = await one.claim_run("default", run_id)
    assert claim is not None
    await one.append(claim, frame(1, outcome=COMPLETED))
    await one.delete("default", run_id)


@every_kind
async def test_a_command_arrives_though_the_inbox_is_foreign(
    one: NatsStore, other: NatsStore, stranger: Stranger, kind: str
) -> None:
    claim = await claimed(one)
    await stranger.store(inbox_subject("default", claim.run_id), *GARBAGE[kind])
    arriving = asyncio.create_task(one.commands(claim, 0))
    await other.command("default", claim.run_id, cancel(claim.run_id))
    found = list(await soon(arriving))
    while cancel(claim.run_id) not in found:  # a stranger's list of strings is a list of commands
        found += await soon(one.commands(claim, len(found)))


@pytest.mark.parametrize("payload", [b"other", b""])
async def test_a_run_whose_definition_is_overwritten_can_be_ended(
    one: NatsStore, stranger: Stranger, payload: bytes
) -> None:
    run_id = await one.create(new_run())
    headers = {"Polos-Piece": "0" * 64}
    await stranger.store(definition_subject("default", run_id, 0), payload, headers)
    with pytest.raises(StoreUnavailable, match="piece 0"):
        await soon(first_claim(one, {"agent"}))
    claim = await one.claim_run("default", run_id)
    assert claim is not None
    assert claim.definition == b""
    await one.append(claim, frame(1, outcome=COMPLETED))
    await one.delete("default", run_id)
