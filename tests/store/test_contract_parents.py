"""The contract of every store: runs that steps of other runs have started."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from polos.v1.run_pb2 import RunState
from polos_client.errors import RequestIdReused, RunExpired, TooManyRuns
from polos_service.store import NewRun, Parent, RunQuery, RunStore
from tests.support.stores import COMPLETED, ended, frame, new_run, soon


def started(step: str, root: str = "root", run: str = "", **fields: Any) -> NewRun:
    """Return a run that a step starts; the step is of the root run if no other is named."""
    parent = Parent(root=root, run_id=run or root, step_key=step, depth=1)
    return new_run(parent=parent, **fields)


async def listed(store: RunStore, project: str = "default", **query: Any) -> list[str]:
    asked = RunQuery(**{"limit": 100, **query})
    return [record.run_id for record in await store.list(project, asked)]


async def test_a_step_starts_one_run(store: RunStore) -> None:
    first = started("a", digest=b"1")
    assert await store.create(first) == first.run_id
    assert await store.create(started("a", digest=b"1")) == first.run_id
    claim = await store.claim_run("default", first.run_id)
    assert claim is not None
    assert claim.parent == first.parent
    assert (await store.get("default", first.run_id)).parent == first.parent
    await store.append(claim, frame(1, outcome=COMPLETED))
    assert await store.create(started("a", digest=b"1")) == first.run_id
    others = [
        started("b"),
        started("a", run="root:5"),
        started("a", root="root2"),
        started("a", project="other"),
        new_run(request_id="a"),
        new_run(request_id="root a"),
    ]
    assert [await store.create(one) for one in others] == [one.run_id for one in others]
    assert await listed(store, parent_root="root") == [
        others[1].run_id,
        others[0].run_id,
        first.run_id,
    ]
    with pytest.raises(RequestIdReused, match="The step 'a' of run root already started"):
        await store.create(started("a", digest=b"2"))


async def test_the_runs_that_a_run_has_started_are_listed(store: RunStore) -> None:
    own = [await store.create(started(f"s{number}", "run-1")) for number in range(3)]
    below = await store.create(started("s0", "run-1", "run-1:4"))
    await store.create(started("s0", "run-10"))
    await store.create(new_run())
    every = [below, *reversed(own)]
    assert await listed(store, parent_root="run-1") == every
    assert await listed(store, parent_root="run-1", limit=2) == every[:2]
    assert await listed(store, parent_root="run-1", before=every[1]) == every[2:]
    assert await listed(store, parent_root="run-1", parent_run_id="run-1") == every[1:]
    assert await listed(store, parent_root="run-1", parent_run_id="run-1:4") == [below]
    assert await listed(store, "other", parent_root="run-1") == []
    assert await listed(store, parent_root="unknown") == []
    claim = await store.claim_run("default", own[0])
    assert claim is not None
    running = RunState.RUN_STATE_RUNNING
    assert await listed(store, parent_root="run-1", state=running) == [own[0]]


async def test_a_deleted_run_is_forgotten_by_its_step(store: RunStore) -> None:
    claim = await ended(store, parent=started("a").parent)
    await store.delete("default", claim.run_id)
    assert await listed(store, parent_root="root") == []
    again = started("a", digest=b"another")
    assert await store.create(again) == again.run_id
    assert await listed(store, parent_root="root") == [again.run_id]


async def test_a_removed_run_is_not_started_again(store: RunStore) -> None:
    claim = await ended(store, parent=started("a").parent)
    while await store.expire(2**62):
        pass
    assert await listed(store, parent_root="root") == []
    assert await store.create(started("a")) == claim.run_id
    with pytest.raises(RunExpired):
        await store.get("default", claim.run_id)


async def test_a_step_finds_its_run_while_the_queue_is_full(
    open_store: Callable[..., Awaitable[RunStore]],
) -> None:
    store = await open_store(max_queued=1)
    first = await store.create(started("a"))
    with pytest.raises(TooManyRuns):
        await store.create(started("b"))
    assert await store.create(started("a")) == first
    await store.close()


async def test_what_started_a_run_outlives_the_store(
    open_store: Callable[..., Awaitable[RunStore]],
) -> None:
    store = await open_store()
    run = started("a", "root", "root:7")
    await store.create(run)
    await store.close()
    store = await open_store()
    assert await store.create(started("a", "root", "root:7")) == run.run_id
    (claim,) = await soon(store.claim(["agent"], 1))
    assert claim.parent == run.parent
    await store.close()
