"""The contract of the AccessStore, for every store."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from polos_service.store.access import AccessEntry, AccessStore, Changed, Store
from polos_service.store.nats import NatsStore
from polos_service.store.nats.subjects import ACCESS
from tests.support.nats import NatsServer, replica

Open = Callable[[], Awaitable[Store]]


async def whole(access: AccessStore, after: int = 0) -> list[AccessEntry]:
    """Return everything behind a revision."""
    found: list[AccessEntry] = []
    while page := await access.entries(found[-1].revision if found else after):
        found += page
    return found


async def test_there_is_nothing_at_first(store: Store) -> None:
    assert list(await store.access.entries(0)) == []


async def test_the_newest_value_of_each_name_is_kept(store: Store) -> None:
    first = await store.access.put("key.a", b"1", 0)
    await store.access.put("key.b", b"2", 0)
    third = await store.access.put("key.a", b"3", first)
    found = await whole(store.access)
    assert [(one.name, one.value) for one in found] == [("key.b", b"2"), ("key.a", b"3")]
    assert found[-1].revision == third
    assert await whole(store.access, third) == []
    assert [one.name for one in await whole(store.access, found[0].revision)] == ["key.a"]


@pytest.mark.parametrize("revision", [0, 999])
async def test_a_value_that_has_changed_stays(store: Store, revision: int) -> None:
    await store.access.put("key.a", b"1", 0)
    with pytest.raises(Changed):
        await store.access.put("key.a", b"2", revision)
    assert [one.value for one in await whole(store.access)] == [b"1"]


async def test_a_value_that_is_not_there_cannot_be_replaced(store: Store) -> None:
    with pytest.raises(Changed):
        await store.access.put("key.a", b"2", 7)
    assert await whole(store.access) == []


async def test_the_same_value_again_changes_nothing(store: Store) -> None:
    first = await store.access.put("key.a", b"1", 0)
    assert await store.access.put("key.a", b"1", 0) == first


async def test_of_many_who_put_a_new_value_one_succeeds(store: Store) -> None:
    values = [str(number).encode() for number in range(20)]
    put = (store.access.put("signing", value, 0) for value in values)
    done = await asyncio.gather(*put, return_exceptions=True)
    assert [type(one) for one in done].count(Changed) == 19
    (entry,) = await whole(store.access)
    assert entry.revision in done


async def test_values_outlive_the_process(open_store: Open) -> None:
    store = await open_store()
    for number in range(1200):  # more than a page
        await store.access.put(f"key.{number}", b"value", 0)
    await store.close()
    store = await open_store()
    found = await whole(store.access)
    assert {one.name for one in found} == {f"key.{number}" for number in range(1200)}
    assert [one.revision for one in found] == sorted(one.revision for one in found)
    await store.close()


async def test_replicas_share_the_values(one: NatsStore, other: NatsStore) -> None:
    first = await one.access.put("key.a", b"1", 0)
    assert [entry.value for entry in await whole(other.access)] == [b"1"]
    second = await other.access.put("key.a", b"2", first)
    with pytest.raises(Changed):
        await one.access.put("key.a", b"3", first)
    assert [entry.value for entry in await whole(one.access, first)] == [b"2"]
    assert second > first


async def test_the_bucket_is_made_when_it_is_needed(nats_server: NatsServer) -> None:
    store = await replica(nats_server)
    names = (await store._jetstream.request("STREAM.NAMES"))["streams"]
    assert ACCESS not in names
    assert await store.healthy()
    await store.access.put("key.a", b"1", 0)
    names = (await store._jetstream.request("STREAM.NAMES"))["streams"]
    assert ACCESS in names
    await store.close()
