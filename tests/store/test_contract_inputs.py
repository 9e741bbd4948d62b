"""The contract of every store: what runs were started with."""

from __future__ import annotations

import time

import pytest

from polos_client.errors import RunExpired, RunNotFound
from polos_service.store import Frame, Parent, RunQuery, RunStore
from tests.support.stores import COMPLETED, claimed, ended, frame, new_run

PREVIEW = 'Ünï "quoted" \\ 日本語 {"a": 1} ' + "🙂" * 170

PARENT = Parent(root="root", run_id="root:2", step_key="s", depth=1)


@pytest.mark.parametrize("preview", ["", PREVIEW])
@pytest.mark.parametrize("parent", [None, PARENT], ids=["caller", "step"])
async def test_a_run_keeps_the_beginning_of_its_input(
    store: RunStore, preview: str, parent: Parent | None
) -> None:
    run = new_run(input_preview=preview, parent=parent)
    await store.create(run)

    async def previews() -> list[str]:
        (listed,) = await store.list("default", RunQuery(limit=10))
        record = await store.get("default", run.run_id)
        assert record.parent == listed.parent == parent
        return [listed.input_preview, record.input_preview]

    assert await previews() == [preview, preview]
    claim = await store.claim_run("default", run.run_id)
    assert claim is not None
    assert claim.parent == parent
    assert await previews() == [preview, preview]
    await store.append(claim, frame(1, outcome=COMPLETED))
    assert await previews() == [preview, preview]


async def test_the_definition_is_there_until_the_run_is_removed(store: RunStore) -> None:
    large = bytes(range(256)) * 8000
    claim = await claimed(store, definition=large)
    assert await store.definition("default", claim.run_id) == large
    await store.append(claim, frame(1, outcome=COMPLETED))
    assert await store.definition("default", claim.run_id) == large
    with pytest.raises(RunNotFound):
        await store.definition("other", claim.run_id)
    await store.delete("default", claim.run_id)
    with pytest.raises(RunNotFound):
        await store.definition("default", claim.run_id)
    with pytest.raises(RunNotFound):
        await store.private("default", claim.run_id, 1)


async def test_what_retention_has_removed_has_no_input(store: RunStore) -> None:
    claim = await ended(store, input_preview=PREVIEW)
    while await store.expire(time.time_ns()):
        pass
    for reading in (
        store.definition("default", claim.run_id),
        store.private("default", claim.run_id, 1),
    ):
        with pytest.raises(RunExpired):
            await reading


async def test_what_is_stored_beside_an_event_is_found_wherever_it_is(store: RunStore) -> None:
    claim = await claimed(store)
    sizes = [10, 20_000, 10, 40_000, 10, 10]
    for number, size in enumerate(sizes):
        first = 1 + 2 * number
        line = b"line %d %s\n" % (first, b"x" * size)
        await store.append(claim, Frame(first=first, last=first + 1, data=b"data"), line)

    async def found() -> None:
        for sequence in range(1, 2 * len(sizes) + 1):
            beside = await store.private("default", claim.run_id, sequence)
            first = sequence - (sequence - 1) % 2
            assert b"line %d " % first in beside
            assert b"data" not in beside
        assert await store.private("default", claim.run_id, 99) == b""

    await found()
    await store.release(claim)
    await found()
    again = await store.claim_run("default", claim.run_id)
    assert again is not None
    last = 2 * len(sizes) + 1
    await store.append(again, frame(last, outcome=COMPLETED))
    await found()
    with pytest.raises(RunNotFound):
        await store.private("other", claim.run_id, 1)
