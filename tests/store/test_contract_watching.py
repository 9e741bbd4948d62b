"""The contract of every store: root runs that wait for the end of others."""

from __future__ import annotations

import pytest

from polos_client.errors import RunExpired, RunNotFound
from polos_service.store import Claim, RunStore, end_of
from tests.support.stores import COMPLETED, cancel, claimed, ended, first_claim, frame, soon


async def suspended(store: RunStore, workflow_id: str) -> Claim:
    """Create a run and suspend it."""
    claim = await claimed(store, workflow_id=workflow_id)
    await store.append(claim, frame(1))
    assert await store.suspend(claim, wake_at=None, seen=0, deadline=None)
    return claim


async def test_the_end_of_a_run_is_told_to_those_who_wait(store: RunStore) -> None:
    target = await claimed(store)
    held = await claimed(store)
    parked = await suspended(store, "parked")
    for root in (held.run_id, parked.run_id, held.run_id):
        assert await store.watch("default", target.run_id, root)
    found = [await store.watched("default", one.run_id) for one in (target, held, parked)]
    assert found == [True, False, False]
    assert not await store.watched("other", target.run_id)
    await store.append(target, frame(1))
    assert await store.inbox("default", held.run_id) in ((), [])
    await store.append(target, frame(2, outcome=COMPLETED))
    expected = end_of(target.run_id, held.run_id)
    assert list(await soon(store.commands(held, 0))) == [expected]
    woken = await soon(first_claim(store, ["parked"]))
    assert woken.run_id == parked.run_id
    assert list(woken.commands) == [end_of(target.run_id, parked.run_id)]
    assert not await store.watch("default", target.run_id, held.run_id)
    assert list(await store.inbox("default", held.run_id)) == [expected]


async def test_a_run_that_has_ended_is_not_waited_for(store: RunStore) -> None:
    over = await ended(store)
    held = await claimed(store)
    assert not await store.watch("default", over.run_id, held.run_id)
    with pytest.raises(RunNotFound):
        await store.watch("default", "nobody", held.run_id)
    with pytest.raises(RunNotFound):
        await store.watch("other", over.run_id, held.run_id)
    await store.delete("default", over.run_id)
    with pytest.raises(RunNotFound):
        await store.watch("default", over.run_id, held.run_id)
    gone = await ended(store)
    while await store.expire(2**62):
        pass
    with pytest.raises(RunExpired):
        await store.watch("default", gone.run_id, held.run_id)


async def test_those_who_have_ended_or_gone_are_not_told(store: RunStore) -> None:
    target, over, gone, held = [await claimed(store) for _ in range(4)]
    for root in (over, gone, held):
        assert await store.watch("default", target.run_id, root.run_id)
    for one in (over, gone):
        await store.append(one, frame(1, outcome=COMPLETED))
    await store.delete("default", gone.run_id)
    await store.command("default", held.run_id, cancel(held.run_id))
    await store.append(target, frame(1, outcome=COMPLETED))
    told = list(await soon(store.commands(held, 1)))
    assert told == [end_of(target.run_id, held.run_id)]
    assert list(await store.inbox("default", over.run_id)) == []


async def test_two_runs_that_wait_for_each_other_both_end(store: RunStore) -> None:
    one, other = await claimed(store), await claimed(store)
    assert await store.watch("default", one.run_id, other.run_id)
    assert await store.watch("default", other.run_id, one.run_id)
    await store.append(one, frame(1, outcome=COMPLETED))
    assert list(await soon(store.commands(other, 0))) == [end_of(one.run_id, other.run_id)]
    await store.append(other, frame(1, outcome=COMPLETED))
    assert (await store.get("default", other.run_id)).state == COMPLETED
