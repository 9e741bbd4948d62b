"""The contract of every store: who may write a run's log."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Collection, Iterator

import pytest

from polos.v1.run_pb2 import RunState
from polos_service.store import Claim, RunQuery, RunStore
from tests.support.stores import claimed, ended, first_claim, frame, history, new_run, settled, soon

RUNNING = RunState.RUN_STATE_RUNNING
QUEUED = RunState.RUN_STATE_QUEUED


class Names(Collection[str]):
    """A live collection that tells which threads iterate it."""

    def __init__(self, *names: str) -> None:
        self.names = list(names)
        self.threads: set[int] = set()

    def __iter__(self) -> Iterator[str]:
        self.threads.add(threading.get_ident())
        return iter(self.names)

    def __len__(self) -> int:
        return len(self.names)

    def __contains__(self, name: object) -> bool:
        return name in self.names


async def test_a_claim_carries_what_its_run_was_created_with(store: RunStore) -> None:
    run = new_run(definition=b"what", deadline=123, create_time=45, workflow_id="w", project="p")
    await store.create(run)
    claim = await soon(first_claim(store, {"w"}))
    assert (claim.project, claim.run_id, claim.workflow_id) == ("p", run.run_id, "w")
    assert (claim.definition, claim.deadline, claim.create_time) == (b"what", 123, 45)
    assert (claim.latest, claim.commands) == (0, ())
    assert claim.epoch > 0
    assert (await store.get("p", run.run_id)).state == RUNNING


async def test_a_claim_waits_until_a_run_is_queued(store: RunStore) -> None:
    claiming = asyncio.create_task(first_claim(store, {"agent"}))
    await settled()
    assert not claiming.done()
    run_id = await store.create(new_run())
    assert (await soon(claiming)).run_id == run_id


async def test_a_claim_waits_until_a_run_is_released(store: RunStore) -> None:
    held = await claimed(store)
    claiming = asyncio.create_task(first_claim(store, {"agent"}))
    await settled()
    assert not claiming.done()
    await store.release(held)
    claim = await soon(claiming)
    assert claim.run_id == held.run_id
    assert claim.epoch > held.epoch


async def test_the_oldest_run_is_claimed_first(store: RunStore) -> None:
    created = [await store.create(new_run(project=f"p{n % 2}")) for n in range(5)]
    assert [(await soon(first_claim(store, {"agent"}))).run_id for _ in created] == created


async def test_runs_that_are_queued_together_are_claimed_together(store: RunStore) -> None:
    """Some at a time, at least one: those of a workflow in the order in which they came."""
    created = [await store.create(new_run()) for _ in range(10)]
    got: list[Claim] = []
    while len(got) < len(created):
        found = await soon(store.claim({"agent"}, 4))
        assert 1 <= len(found) <= 4
        got += found
    assert [claim.run_id for claim in got] == created
    for claim in got:
        await store.append(claim, frame(1))


async def test_a_claim_of_several_does_not_wait_for_more_than_one(store: RunStore) -> None:
    claiming = asyncio.create_task(store.claim({"agent"}, 100))
    await settled()
    run_id = await store.create(new_run())
    assert [claim.run_id for claim in await soon(claiming)] == [run_id]


async def test_the_first_claim_has_the_epoch_1_and_an_empty_log(store: RunStore) -> None:
    await store.create(new_run())
    first = await soon(first_claim(store, {"agent"}))
    assert first.epoch == 1
    assert all(not entry.data for entry in await history(store, first))
    await store.release(first)
    assert (await soon(first_claim(store, {"agent"}))).epoch > 1


async def test_only_runs_of_the_given_workflows_are_claimed(store: RunStore) -> None:
    await store.create(new_run(workflow_id="other"))
    mine = await store.create(new_run(workflow_id="mine"))
    assert (await soon(first_claim(store, {"mine", "none"}))).run_id == mine
    claiming = asyncio.create_task(first_claim(store, {"mine"}))
    await settled()
    assert not claiming.done()
    claiming.cancel()


async def test_a_workflow_learned_later_is_claimed(store: RunStore) -> None:
    names = Names()
    claiming = asyncio.create_task(first_claim(store, names))
    await settled()
    names.names.append("late")
    run_id = await store.create(new_run(workflow_id="late"))
    assert (await soon(claiming)).run_id == run_id


async def test_the_live_collection_is_only_read_in_the_loop(store: RunStore) -> None:
    names = Names("agent")
    await store.create(new_run())
    await soon(first_claim(store, names))
    assert names.threads == {threading.get_ident()}, "it changes while another thread reads it"


async def test_no_two_claims_get_the_same_run(store: RunStore) -> None:
    claims = [asyncio.create_task(first_claim(store, {"agent"})) for _ in range(20)]
    created = await asyncio.gather(*(store.create(new_run()) for _ in range(20)))
    got = await soon(asyncio.gather(*claims))
    assert sorted(claim.run_id for claim in got) == sorted(created)


async def test_a_run_that_is_held_or_has_ended_is_not_claimed_again(store: RunStore) -> None:
    held, over = await claimed(store), await ended(store)
    assert await store.claim_run("default", held.run_id) is None
    assert await store.claim_run("default", over.run_id) is None
    assert await store.claim_run("default", "nothing") is None


async def test_of_claims_of_one_run_one_wins(store: RunStore) -> None:
    run_id = await store.create(new_run())
    got = await asyncio.gather(*(store.claim_run("default", run_id) for _ in range(10)))
    assert len([claim for claim in got if claim is not None]) == 1


@pytest.mark.parametrize("cancels", [1, 2])
async def test_a_cancelled_claim_leaves_the_run_claimable(store: RunStore, cancels: int) -> None:
    """The cancellation comes at every stage: before, during and after the commit."""
    for stage in range(60):
        run_id = await store.create(new_run())
        claiming = asyncio.create_task(first_claim(store, {"agent"}))
        for _ in range(stage % 20):
            await asyncio.sleep(0)
        if stage >= 40:
            await asyncio.sleep(0.0002 * (stage - 39))
        for _ in range(cancels):
            claiming.cancel()
            await asyncio.sleep(0)
        claim = None
        with contextlib.suppress(asyncio.CancelledError):
            claim = await soon(claiming)
        if claim is None:
            claim = await soon(first_claim(store, {"agent"}))
        assert claim.run_id == run_id


async def test_a_cancelled_claim_of_several_leaves_all_runs_claimable(store: RunStore) -> None:
    created = [await store.create(new_run()) for _ in range(6)]
    for stage in range(30):
        claiming = asyncio.create_task(store.claim({"agent"}, 6))
        for _ in range(stage):
            await asyncio.sleep(0)
        claiming.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            for claim in await soon(claiming):
                await store.release(claim)
    got: list[Claim] = []
    while len(got) < len(created):
        got += await soon(store.claim({"agent"}, 6))
    assert sorted(claim.run_id for claim in got) == created


async def test_a_claim_cancelled_while_runs_arrive_loses_none(store: RunStore) -> None:
    for _ in range(30):
        claiming = asyncio.create_task(first_claim(store, {"agent"}))
        await asyncio.sleep(0)
        creating = asyncio.create_task(store.create(new_run()))
        await asyncio.sleep(0)
        claiming.cancel()
        run_id = await creating
        with contextlib.suppress(asyncio.CancelledError):
            await store.release(await claiming)
        assert (await soon(first_claim(store, {"agent"}))).run_id == run_id


async def test_release_queues_a_run_only_for_its_holder(store: RunStore) -> None:
    old = await claimed(store)
    await store.release(old)
    assert (await store.get("default", old.run_id)).state == QUEUED
    new = await store.claim_run("default", old.run_id)
    assert new is not None
    await store.release(old)
    assert (await store.get("default", old.run_id)).state == RUNNING
    start = (await store.get("default", old.run_id)).start_time
    await store.release(new)
    assert (await store.get("default", old.run_id)).state == QUEUED
    await store.claim_run("default", old.run_id)
    assert (await store.get("default", old.run_id)).start_time == start, "the first claim's"


async def test_why_a_run_was_left_is_told_until_it_goes_on(store: RunStore) -> None:
    """From the release on, also while the next holder finds that it cannot go on, either."""
    claim = await claimed(store)
    why = 'Its code has "a" as\na tüíng, 100 %.'

    async def told() -> str:
        record = await store.get(claim.project, claim.run_id)
        assert await store.list(claim.project, RunQuery(limit=1)) == [record]
        return record.left

    assert await told() == ""
    await store.release(claim, left=why)
    assert await told() == why
    again = await store.claim_run(claim.project, claim.run_id)
    assert again is not None
    assert await told() == why
    await store.append(again, frame(1))
    assert await told() == ""
    await store.release(again, left=why)
    third = await store.claim_run(claim.project, claim.run_id)
    assert third is not None
    assert await store.suspend(third, wake_at=None, seen=0, deadline=None)
    assert await told() == ""
