"""The contract of every store: the log of a run."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from polos.v1.run_pb2 import RunState
from polos_client.errors import RunNotFound
from polos_service.errors import Fenced
from polos_service.store import ENDED, Frame, RunStore
from tests.support.stores import (
    ALL,
    COMPLETED,
    claimed,
    ended,
    frame,
    history,
    new_run,
    settled,
    soon,
    spans,
)


async def test_frames_are_read_back_as_they_were_appended(store: RunStore) -> None:
    claim = await claimed(store)
    frames = [frame(1, 3, b"abc"), frame(4, data=b""), frame(5, 6, bytes(range(256)))]
    for one in frames:
        await store.append(claim, one)
    found = await store.read(claim.project, claim.run_id, 0, ALL)
    assert list(found.frames) == frames
    assert (found.latest, found.ended) == (6, False)


async def test_the_log_of_a_queued_run_is_empty(store: RunStore) -> None:
    run_id = await store.create(new_run())
    found = await store.read("default", run_id, 0, ALL)
    assert (list(found.frames), found.latest, found.ended) == ([], 0, False)


@pytest.mark.parametrize(("first", "last"), [(1, 2), (2, 3), (4, 4), (3, 2), (0, 0), (5, 9)])
async def test_a_frame_that_is_not_the_next_is_refused_and_leaves_nothing(
    store: RunStore, first: int, last: int
) -> None:
    claim = await claimed(store)
    await store.append(claim, frame(1, 2))
    with pytest.raises(ValueError, match=f"{first} to {last}"):
        await store.append(claim, frame(first, last, outcome=COMPLETED), b"private")
    assert await spans(store, claim) == [(1, 2)]
    assert len(await history(store, claim)) == 2
    assert (await store.get("default", claim.run_id)).state == RunState.RUN_STATE_RUNNING
    await store.append(claim, frame(3))
    assert await spans(store, claim) == [(1, 2), (3, 3)]


async def test_of_appends_at_the_same_place_one_wins(store: RunStore) -> None:
    claim = await claimed(store)
    appends = (store.append(claim, frame(1, data=b"%d" % n)) for n in range(5))
    outcomes = await asyncio.gather(*appends, return_exceptions=True)
    assert [type(one) for one in outcomes].count(ValueError) == 4
    winner = outcomes.index(None)
    found = await store.read("default", claim.run_id, 0, ALL)
    assert [one.data for one in found.frames] == [b"%d" % winner]


async def test_a_new_claim_fences_the_one_before(store: RunStore) -> None:
    old = await claimed(store)
    await store.append(old, frame(1))
    await store.release(old)
    new = await store.claim_run("default", old.run_id)
    assert new is not None
    assert new.epoch > old.epoch
    assert new.latest == 1
    with pytest.raises(Fenced, match=old.run_id):
        await store.append(old, frame(2, outcome=COMPLETED), b"private")
    assert await spans(store, new) == [(1, 1)]
    assert all(b"private" not in entry.private for entry in await history(store, new))
    await store.append(new, frame(2))
    assert await spans(store, new) == [(1, 1), (2, 2)]


async def test_a_released_claim_is_fenced(store: RunStore) -> None:
    claim = await claimed(store)
    await store.release(claim)
    with pytest.raises(Fenced):
        await store.append(claim, frame(1))


async def test_a_claim_frame_is_in_the_history_without_events(store: RunStore) -> None:
    first = await claimed(store)
    await store.append(first, frame(1, data=b"event"), b"mine")
    await store.release(first)
    second = await store.claim_run("default", first.run_id)
    assert second is not None
    entries = await history(store, second)
    assert [entry.data for entry in entries] == [b"", b"event", b"", b""]
    assert entries[1].private == b"mine"
    assert f'"released": {{"epoch": {first.epoch}}}'.encode() in entries[2].private
    for claim, entry in zip((first, second), (entries[0], entries[3]), strict=True):
        assert f'"epoch": {claim.epoch}'.encode() in entry.private
        assert b'"writer": "' in entry.private


async def test_private_state_is_never_read(store: RunStore) -> None:
    claim = await claimed(store, definition=b"SECRET definition")
    await store.append(claim, frame(1, data=b"public"), b"SECRET state")
    found = await store.read("default", claim.run_id, 0, ALL)
    record = await store.get("default", claim.run_id)
    assert "SECRET" not in repr(found) + repr(record)
    assert b"SECRET state" in [entry.private for entry in await history(store, claim)]


async def test_reads_are_current_while_a_history_is_read(store: RunStore) -> None:
    claim = await claimed(store)
    await store.append(claim, frame(1))
    entries = store.history(claim)
    await anext(entries)
    await store.append(claim, frame(2))
    other = await store.create(new_run())
    assert await spans(store, claim) == [(1, 1), (2, 2)]
    await soon(store.wait("default", claim.run_id, 1))
    assert (await store.get("default", other)).latest == 0
    assert b"x" in [entry.data async for entry in entries]


async def test_a_long_history_is_whole(store: RunStore) -> None:
    claim = await claimed(store)
    for number in range(1, 9):
        await store.append(claim, frame(number, data=b"%d" % number * 300_000), b"p%d" % number)
    entries = (await history(store, claim))[1:]
    assert [(one.data[:1], one.private) for one in entries] == [
        (b"%d" % number, b"p%d" % number) for number in range(1, 9)
    ]


@settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(
    sizes=st.lists(st.tuples(st.integers(1, 5), st.integers(0, 40)), min_size=1, max_size=8),
    limits=st.lists(st.integers(0, 90), min_size=1, max_size=5),
    start=st.integers(0, 40),
)
async def test_slices_from_any_cursor_join_to_the_log(
    store: RunStore, sizes: list[tuple[int, int]], limits: list[int], start: int
) -> None:
    claim = await claimed(store)
    log: list[Frame] = []
    for count, size in sizes:
        first = log[-1].last + 1 if log else 1
        log.append(frame(first, first + count - 1, bytes([first]) * size))
        await store.append(claim, log[-1])
    latest = log[-1].last
    taken: list[Frame] = []
    cursor, reads = min(start, latest), 0
    expected = [one for one in log if one.last > cursor]
    while cursor < latest:
        limit = limits[reads % len(limits)]
        found = await store.read("default", claim.run_id, cursor, limit)
        assert found.frames, "a read from before the end brings at least one frame"
        assert sum(len(one.data) for one in found.frames[:-1]) < max(limit, 1)
        assert found.latest == latest
        taken += found.frames
        cursor, reads = found.frames[-1].last, reads + 1
    assert taken == expected
    assert not (await store.read("default", claim.run_id, latest, ALL)).frames


async def test_the_frame_that_contains_the_cursor_comes_whole(store: RunStore) -> None:
    claim = await claimed(store)
    await store.append(claim, frame(1, 5, b"five"))
    for cursor in range(5):
        found = await store.read("default", claim.run_id, cursor, 1)
        assert list(found.frames) == [frame(1, 5, b"five")]
    assert not (await store.read("default", claim.run_id, 5, 1)).frames


async def test_a_terminal_frame_sets_the_state_and_nothing_follows_it(store: RunStore) -> None:
    for outcome in sorted(ENDED):
        claim = await claimed(store)
        await store.append(claim, frame(1, 2, outcome=outcome))
        record = await store.get("default", claim.run_id)
        assert (record.state, record.latest) == (outcome, 2)
        assert record.finish_time is not None
        assert record.start_time is not None
        assert record.create_time <= record.start_time <= record.finish_time
        found = await store.read("default", claim.run_id, 0, ALL)
        assert found.ended
        with pytest.raises(Fenced):
            await store.append(claim, frame(3))
        await store.release(claim)
        assert await store.claim_run("default", claim.run_id) is None
        assert await spans(store, claim) == [(1, 2)]


async def test_wait_returns_at_once_where_there_is_more(store: RunStore) -> None:
    claim = await claimed(store)
    await store.append(claim, frame(1, 3))
    for cursor in (0, 2):
        await soon(store.wait("default", claim.run_id, cursor))


async def test_wait_returns_at_once_where_the_run_has_ended(store: RunStore) -> None:
    claim = await ended(store)
    await soon(store.wait("default", claim.run_id, 1))


@pytest.mark.parametrize("outcome", [None, COMPLETED])
async def test_an_append_wakes_everyone_who_waits(
    store: RunStore, outcome: RunState.ValueType | None
) -> None:
    claim = await claimed(store)
    waits = [asyncio.create_task(store.wait("default", claim.run_id, 0)) for _ in range(10)]
    await settled()
    assert not any(task.done() for task in waits)
    await store.append(claim, frame(1, outcome=outcome))
    await soon(asyncio.gather(*waits))


async def test_no_wait_is_lost_between_a_read_and_an_append(store: RunStore) -> None:
    claim = await claimed(store)

    async def tail() -> list[int]:
        seen: list[int] = []
        while True:
            found = await store.read("default", claim.run_id, len(seen), 1)
            seen += [one.first for one in found.frames]
            if found.ended and len(seen) == found.latest:
                return seen
            await store.wait("default", claim.run_id, len(seen))

    tails = [asyncio.create_task(tail()) for _ in range(3)]
    for number in range(1, 300):
        await store.append(claim, frame(number))
    await store.append(claim, frame(300, outcome=COMPLETED))
    assert await soon(asyncio.gather(*tails)) == [list(range(1, 301))] * 3


async def test_an_append_wakes_readers_though_its_task_was_cancelled(store: RunStore) -> None:
    claim = await claimed(store)
    waiting = asyncio.create_task(store.wait("default", claim.run_id, 0))
    await settled()
    appending = asyncio.ensure_future(store.append(claim, frame(1)))
    await asyncio.sleep(0)
    appending.cancel()
    with pytest.raises(asyncio.CancelledError):
        await appending
    await soon(waiting)
    assert await spans(store, claim) == [(1, 1)]


async def test_an_append_below_the_cursor_wakes_nobody(store: RunStore) -> None:
    claim = await claimed(store)
    waiting = asyncio.create_task(store.wait("default", claim.run_id, 2))
    await settled()
    await store.append(claim, frame(1, 2))
    await settled()
    assert not waiting.done()
    await store.append(claim, frame(3))
    await soon(waiting)


async def test_a_release_and_a_claim_wake_no_reader(store: RunStore) -> None:
    claim = await claimed(store)
    waiting = asyncio.create_task(store.wait("default", claim.run_id, 0))
    await settled()
    await store.release(claim)
    await store.claim_run("default", claim.run_id)
    await settled()
    assert not waiting.done()
    waiting.cancel()


async def test_the_log_of_an_unknown_run_is_not_found(store: RunStore) -> None:
    with pytest.raises(RunNotFound, match="nothing"):
        await store.read("default", "nothing", 0, ALL)
    with pytest.raises(RunNotFound, match="nothing"):
        await soon(store.wait("default", "nothing", 0))
    with pytest.raises(RunNotFound, match="nothing"):
        await store.get("default", "nothing")
