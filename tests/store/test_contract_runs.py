"""The contract of every store: the records of runs, and whose they are."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from polos.v1.run_pb2 import RunState
from polos_client.errors import RequestIdReused, RunNotFinished, RunNotFound
from polos_service.store import RunQuery, RunRecord, RunStore
from tests.support.stores import ALL, cancel, claimed, ended, frame, history, new_run, settled, soon

QUEUED = RunState.RUN_STATE_QUEUED


async def listed(store: RunStore, project: str = "default", **query: Any) -> list[str]:
    asked = RunQuery(**{"limit": 100, **query})
    return [record.run_id for record in await store.list(project, asked)]


async def test_a_record_holds_what_the_run_was_created_with(store: RunStore) -> None:
    run = new_run(session_id="s", user_id="u", streaming=False, create_time=7, workflow_id="w")
    assert await store.create(run) == run.run_id
    expected = RunRecord(
        run_id=run.run_id,
        workflow_id="w",
        state=QUEUED,
        session_id="s",
        user_id="u",
        streaming=False,
        create_time=7,
        start_time=None,
        finish_time=None,
        latest=0,
    )
    assert await store.get("default", run.run_id) == expected
    assert await store.list("default", RunQuery(limit=1)) == [expected]


async def test_the_same_request_returns_the_same_run(store: RunStore) -> None:
    first = await store.create(new_run(request_id="r", digest=b"a"))
    assert await store.create(new_run(request_id="r", digest=b"a")) == first
    claim = await store.claim_run("default", first)
    assert claim is not None
    assert await store.create(new_run(request_id="r", digest=b"a")) == first
    await store.append(claim, frame(1, outcome=RunState.RUN_STATE_FAILED))
    assert await store.create(new_run(request_id="r", digest=b"a")) == first
    assert await listed(store) == [first]


async def test_a_request_id_with_another_payload_is_refused(store: RunStore) -> None:
    first = await store.create(new_run(request_id="r", digest=b"a"))
    with pytest.raises(RequestIdReused, match="'r'") as refused:
        await store.create(new_run(request_id="r", digest=b"b"))
    assert refused.value.metadata == {"request_id": "r", "run_id": first}
    assert await listed(store) == [first]


async def test_concurrent_requests_of_one_id_make_one_run(store: RunStore) -> None:
    runs = [new_run(request_id="r", digest=b"%d" % (n % 2)) for n in range(20)]
    made = await asyncio.gather(*map(store.create, runs), return_exceptions=True)
    ids = {one for one in made if isinstance(one, str)}
    refused = [one for one in made if isinstance(one, RequestIdReused)]
    assert (len(ids), len(refused)) == (1, 10)
    assert await listed(store) == list(ids)


async def test_request_ids_are_each_project_s_own(store: RunStore) -> None:
    first = await store.create(new_run(project="a", request_id="r", digest=b"a"))
    second = await store.create(new_run(project="b", request_id="r", digest=b"b"))
    assert first != second
    assert await store.create(new_run(project="b", request_id="r", digest=b"b")) == second


async def test_runs_without_a_request_id_are_all_created(store: RunStore) -> None:
    assert len({await store.create(new_run()) for _ in range(3)}) == 3


async def test_nothing_of_a_project_is_reached_from_another(store: RunStore) -> None:
    claim = await ended(store, project="mine")
    queued = await store.create(new_run(project="mine"))
    for run_id in (claim.run_id, queued):
        with pytest.raises(RunNotFound):
            await store.get("theirs", run_id)
        with pytest.raises(RunNotFound):
            await store.read("theirs", run_id, 0, ALL)
        with pytest.raises(RunNotFound):
            await soon(store.wait("theirs", run_id, 0))
        with pytest.raises(RunNotFound):
            await store.command("theirs", run_id, cancel(run_id))
        with pytest.raises(RunNotFound):
            await store.delete("theirs", run_id)
        assert await store.claim_run("theirs", run_id) is None
    assert await listed(store, "theirs") == []
    assert await listed(store, "mine") == [queued, claim.run_id]
    mine = await store.claim_run("mine", queued)
    assert mine is not None
    assert mine.commands == ()


async def test_the_same_run_id_in_two_projects_is_two_runs(store: RunStore) -> None:
    first = await claimed(store, project="a", run_id="same")
    second = await claimed(store, project="b", run_id="same")
    await store.append(first, frame(1, data=b"a"), b"private a")
    await store.append(second, frame(1, data=b"b"), b"private b")
    waiting = asyncio.create_task(store.wait("b", "same", 1))
    arriving = asyncio.create_task(store.commands(second, 0))
    await settled()
    await store.command("a", "same", cancel("same"))
    await store.append(first, frame(2, outcome=RunState.RUN_STATE_COMPLETED))
    await settled()
    assert not waiting.done()
    assert not arriving.done()
    waiting.cancel()
    arriving.cancel()
    await store.delete("a", "same")
    assert [one.data for one in (await store.read("b", "same", 0, ALL)).frames] == [b"b"]
    assert [one.private for one in await history(store, second)][1] == b"private b"
    assert (await store.get("b", "same")).state == RunState.RUN_STATE_RUNNING


async def test_a_list_is_paged_newest_first(store: RunStore) -> None:
    created = [await store.create(new_run()) for _ in range(7)]
    pages: list[list[str]] = []
    before = None
    while page := await listed(store, limit=3, before=before):
        pages.append(page)
        before = page[-1]
        await store.create(new_run())  # a newer run moves no page
    assert pages == [created[:3:-1], created[3:0:-1], created[:1]]


@pytest.fixture
async def various(store: RunStore) -> Sequence[str]:
    """Four runs that differ in everything a query can ask for; the third has ended."""
    fields: list[dict[str, Any]] = [
        {"workflow_id": "a", "session_id": "s", "user_id": None, "create_time": 10},
        {"workflow_id": "b", "session_id": "t", "user_id": "u", "create_time": 20},
        {"workflow_id": "a", "session_id": None, "user_id": "u", "create_time": 30},
        {"workflow_id": "b", "session_id": "s", "user_id": "v", "create_time": 40},
    ]
    runs = [new_run(**one) for one in fields]
    for run in runs:
        await store.create(run)
    claim = await store.claim_run("default", runs[2].run_id)
    assert claim is not None
    await store.append(claim, frame(1, outcome=RunState.RUN_STATE_FAILED))
    return [run.run_id for run in runs]


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ({}, [3, 2, 1, 0]),
        ({"workflow_id": "a"}, [2, 0]),
        ({"session_id": "s"}, [3, 0]),
        ({"user_id": "u"}, [2, 1]),
        ({"state": QUEUED}, [3, 1, 0]),
        ({"state": RunState.RUN_STATE_FAILED}, [2]),
        ({"state": RunState.RUN_STATE_RUNNING}, []),
        ({"created_from": 20}, [3, 2, 1]),
        ({"created_before": 20}, [0]),
        ({"created_from": 20, "created_before": 40}, [2, 1]),
        ({"workflow_id": "b", "session_id": "s"}, [3]),
        ({"workflow_id": "a", "user_id": "v"}, []),
        ({"session_id": ""}, []),
        ({"workflow_id": "a' OR 'a' = 'a"}, []),
        ({"user_id": "u", "limit": 1}, [2]),
    ],
)
async def test_every_filter_must_hold(
    store: RunStore, various: Sequence[str], query: dict[str, Any], expected: list[int]
) -> None:
    assert await listed(store, **query) == [various[index] for index in expected]


async def test_a_run_that_has_not_ended_is_not_deleted(store: RunStore) -> None:
    queued, held = await store.create(new_run()), (await claimed(store)).run_id
    for run_id in (queued, held):
        with pytest.raises(RunNotFinished, match=run_id) as refused:
            await store.delete("default", run_id)
        assert refused.value.metadata == {"run_id": run_id}
        assert (await store.get("default", run_id)).run_id == run_id


async def test_a_deleted_run_is_gone_whole(store: RunStore) -> None:
    claim = await claimed(store, request_id="r", digest=b"a")
    await store.command("default", claim.run_id, cancel(claim.run_id))
    await store.append(claim, frame(1, outcome=RunState.RUN_STATE_COMPLETED), b"private")
    await store.delete("default", claim.run_id)
    for gone in (
        store.get("default", claim.run_id),
        store.read("default", claim.run_id, 0, ALL),
        store.wait("default", claim.run_id, 0),
        store.delete("default", claim.run_id),
        store.command("default", claim.run_id, cancel(claim.run_id)),
        history(store, claim),
        store.commands(claim, 0),
    ):
        with pytest.raises(RunNotFound):
            await soon(gone)
    assert await listed(store) == []
    again = await claimed(store, run_id=claim.run_id, request_id="r", digest=b"b")
    assert (again.latest, again.commands) == (0, ())
    assert [one.data for one in await history(store, again)] == [b""]


async def test_a_deletion_wakes_whoever_waits(store: RunStore) -> None:
    claim = await claimed(store)
    await store.append(claim, frame(1))
    waiting = asyncio.create_task(store.wait("default", claim.run_id, 1))
    await settled()
    await store.append(claim, frame(2, outcome=RunState.RUN_STATE_COMPLETED))
    await store.delete("default", claim.run_id)
    await asyncio.wait({waiting}, timeout=20)
    assert waiting.done()
    with pytest.raises(RunNotFound):
        await store.read("default", claim.run_id, 1, ALL)
