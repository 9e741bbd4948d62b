"""A run's record on NATS, as replicas of other versions write and read it."""

from __future__ import annotations

import json
import time
from dataclasses import replace

from polos_service.store import Parent
from polos_service.store.nats import NatsStore
from polos_service.store.nats.subjects import RUNS, run_subject
from tests.support.nats_stranger import Stranger
from tests.support.stores import COMPLETED, ended, frame, new_run

PARENT = Parent(root="root", run_id="root:3", step_key='a "key" and \u2028 more', depth=2)

MEMBERS = (
    "project run_id workflow_id request_id digest pieces session_id user_id streaming create_time "
    "deadline life outcome latest start_time finish_time"
)
"""The members of a record that 0.1.0 reads; it refuses any other."""


async def test_a_record_has_only_members_that_0_1_0_reads(
    one: NatsStore, stranger: Stranger
) -> None:
    other = replace(PARENT, step_key="other")
    for parent, preview in ((PARENT, ""), (None, "Go."), (other, "Go."), (None, "")):
        run = new_run(parent=parent, input_preview=preview)
        await one.create(run)
        stored = json.loads(await record(stranger, run.run_id))
        assert sorted(stored) == sorted(MEMBERS.split())
        told = await one.get("default", run.run_id)
        assert (told.parent, told.input_preview) == (parent, preview)


async def test_a_run_keeps_its_parent_and_preview_when_0_1_0_writes_its_record(
    one: NatsStore, stranger: Stranger
) -> None:
    run = new_run(parent=PARENT, input_preview="Go.")
    await one.create(run)
    claim = await one.claim_run("default", run.run_id)
    assert claim is not None
    assert claim.parent == PARENT
    await one.append(claim, frame(1, outcome=COMPLETED))
    fields = json.loads(await record(stranger, run.run_id))
    rewritten = dict(reversed(fields.items()))
    await stranger.store(run_subject("default", run.run_id), json.dumps(rewritten).encode())
    told = await one.get("default", run.run_id)
    assert (told.parent, told.input_preview) == (PARENT, "Go.")
    await one.delete("default", run.run_id)
    again = replace(run, run_id=new_run().run_id, digest=b"other")
    assert await one.create(again) == again.run_id, "the step's reservation is gone with the run"


async def test_the_tombstone_of_a_run_has_no_preview(one: NatsStore, stranger: Stranger) -> None:
    claim = await ended(one, input_preview="secret words", parent=PARENT)
    assert b"secret words" in await record(stranger, claim.run_id)
    while await one.expire(time.time_ns()):
        pass
    assert b"secret words" not in await record(stranger, claim.run_id)


async def test_a_record_with_a_member_for_the_parent_is_read(
    one: NatsStore, stranger: Stranger
) -> None:
    run = new_run(parent=PARENT)
    await one.create(run)
    fields = json.loads(await record(stranger, run.run_id))
    digest, _, added = fields["digest"].partition(" ")
    earlier = fields | {"digest": digest, "parent": json.loads(added)["parent"]}
    await stranger.store(run_subject("default", run.run_id), json.dumps(earlier).encode())
    assert (await one.get("default", run.run_id)).parent == PARENT


async def record(stranger: Stranger, run_id: str) -> bytes:
    stored = await stranger.last(RUNS, run_subject("default", run_id))
    assert stored is not None
    return stored
