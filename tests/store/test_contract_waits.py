"""The contract of every store: the index of open waits."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from polos_service.store import RunStore, WaitRecord
from tests.support.stores import COMPLETED, claimed, frame, soon

LARGEST = 300 * 1024
"""Bytes of the largest data."""


def wait(run_id: str, wait_id: int = 1, create_time: int = 1, data: bytes = b"w") -> WaitRecord:
    return WaitRecord(run_id=run_id, wait_id=wait_id, create_time=create_time, data=data)


async def opened(store: RunStore, *waits: WaitRecord, project: str = "default") -> None:
    for one in waits:
        await store.open_wait(project, one)


async def waiting_run(store: RunStore, project: str = "default") -> str:
    """Create a run with an event, whose waits can be open."""
    claim = await claimed(store, project=project)
    await store.append(claim, frame(1))
    return claim.run_id


async def pages(store: RunStore, limit: int, project: str = "default") -> list[WaitRecord]:
    """Return all open waits, read a page at a time."""
    found: list[WaitRecord] = []
    while page := await soon(store.list_waits(project, limit, found[-1].place if found else None)):
        assert len(page) <= limit
        found += page
    return found


async def test_an_open_wait_is_listed_until_it_is_closed(store: RunStore) -> None:
    run_id = await waiting_run(store)
    one, other = wait(run_id, 3, 20, b"\0\n\xff"), wait(run_id, 2, 30, b"")
    await opened(store, one, other)
    assert list(await store.open_waits("default", run_id)) == [other, one]
    assert list(await store.list_waits("default", 10)) == [one, other]
    await store.close_wait("default", run_id, 3)
    assert list(await store.open_waits("default", run_id)) == [other]
    await store.close_wait("default", run_id, 3)
    await store.close_wait("default", "nothing", 3)
    assert list(await store.list_waits("default", 10)) == [other]


async def test_opening_again_changes_nothing(store: RunStore) -> None:
    run_id = await waiting_run(store)
    await opened(store, wait(run_id), wait(run_id), wait(run_id, create_time=2))
    assert list(await store.open_waits("default", run_id)) == [wait(run_id)]
    assert list(await store.list_waits("default", 10)) == [wait(run_id)]
    await store.close_wait("default", run_id, 1)
    assert list(await store.open_waits("default", run_id)) == []
    await opened(store, wait(run_id))
    assert list(await store.open_waits("default", run_id)) == [wait(run_id)]


async def test_the_waits_of_a_project_are_paged_oldest_first(store: RunStore) -> None:
    runs = [await waiting_run(store) for _ in range(3)]
    waits = [
        wait(run_id, wait_id, create_time)
        for run_id in runs
        for wait_id, create_time in ((1, 10), (2, 9), (11, 10), (3, 200))
    ]
    ordered = sorted(waits, key=lambda one: one.place)
    await opened(store, *ordered)
    for limit in (1, 2, 5, 12, 100):
        assert await pages(store, limit) == ordered


async def test_a_page_goes_on_behind_a_wait_that_was_closed(store: RunStore) -> None:
    run_id = await waiting_run(store)
    waits = [wait(run_id, number, number) for number in range(1, 7)]
    await opened(store, *waits)
    first = await store.list_waits("default", 3)
    for one in first:
        await store.close_wait("default", run_id, one.wait_id)
    assert list(await store.list_waits("default", 3, first[-1].place)) == waits[3:]


async def test_waits_are_those_of_their_project(store: RunStore) -> None:
    project = "another.> *"
    here, there = await waiting_run(store), await waiting_run(store, project)
    await opened(store, wait(here))
    await opened(store, wait(there), project=project)
    assert list(await store.list_waits("default", 10)) == [wait(here)]
    assert list(await store.list_waits(project, 10)) == [wait(there)]
    await store.close_wait("default", there, 1)
    assert list(await store.open_waits(project, there)) == [wait(there)]


async def test_the_waits_of_one_run_are_not_those_of_another(store: RunStore) -> None:
    first, second = await waiting_run(store), await waiting_run(store)
    await opened(store, wait(first, 1), wait(second, 1), wait(second, 11))
    await store.close_wait("default", second, 1)
    assert list(await store.open_waits("default", first)) == [wait(first, 1)]
    assert list(await store.open_waits("default", second)) == [wait(second, 11)]


async def test_waits_are_gone_when_their_run_has_ended(store: RunStore) -> None:
    claim = await claimed(store)
    await store.append(claim, frame(1))
    left = await waiting_run(store)
    waits = [wait(claim.run_id, number, number) for number in range(1, 80)]
    await opened(store, *waits, wait(left, 5, 100))
    await store.append(claim, frame(2, outcome=COMPLETED))
    assert list(await store.list_waits("default", 3)) == [wait(left, 5, 100)]
    assert list(await store.open_waits("default", claim.run_id)) == []
    await opened(store, wait(claim.run_id, 99))
    assert await pages(store, 1) == [wait(left, 5, 100)]


async def test_waits_are_gone_when_their_run_was_removed(store: RunStore) -> None:
    for number in range(2):
        claim = await claimed(store)
        await store.append(claim, frame(1))
        await opened(store, wait(claim.run_id))
        await store.append(claim, frame(2, outcome=COMPLETED))
        if number:
            await store.delete("default", claim.run_id)
        else:
            while await store.expire(1 << 62):
                pass
        assert list(await store.list_waits("default", 10)) == []


async def test_waits_survive_a_restart(open_store: Callable[[], Awaitable[RunStore]]) -> None:
    store = await open_store()
    run_id = await waiting_run(store)
    await opened(store, wait(run_id, data=b"x" * LARGEST))
    await store.close()
    store = await open_store()
    try:
        assert list(await store.list_waits("default", 10)) == [wait(run_id, data=b"x" * LARGEST)]
    finally:
        await store.close()


async def test_a_thousand_waits_of_a_run_are_returned_and_no_more(store: RunStore) -> None:
    run_id = await waiting_run(store)
    waits = [wait(run_id, number, number) for number in range(1, 1011)]
    for start in range(0, len(waits), 50):
        await asyncio.gather(
            *(store.open_wait("default", one) for one in waits[start : start + 50])
        )
    assert list(await soon(store.open_waits("default", run_id))) == waits[:1000]
    assert await pages(store, 500) == waits
