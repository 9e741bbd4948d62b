"""Reading one branch of a log: whatever a store leaves out, nothing of the branch is missing."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

import pytest

from polos_service.store import Claim, Frame, RunStore
from polos_service.store.sqlite import SqliteStore
from tests.support.stores import ALL, COMPLETED, claimed, frame

BRANCHES = (1, 2, 7, 11, 12, 111, 2**62)
"""Numbers of children; some begin like others."""

LENGTH = 120
"""Frames of the log."""


def written(seed: int) -> list[Frame]:
    """Return a log of frames of which each has events of some branches, or nobody knows of whom."""
    chance = random.Random(seed)
    frames: list[Frame] = []
    last = 0
    for _ in range(LENGTH):
        first, last = last + 1, last + chance.randint(1, 3)
        size = chance.choice((10, 10, 100, 3_000, 20_000))
        some = frozenset(chance.sample(BRANCHES, chance.choice((0, 1, 1, 2))))
        known = None if chance.random() < 0.05 else some
        frames.append(Frame(first=first, last=last, data=b"x" * size, branches=known))
    return frames


async def sequences(
    store: RunStore, claim: Claim, branch: int, after: int = 0, limit: int = ALL
) -> set[int]:
    """Read a branch slice by slice; return the sequences that the frames have behind a cursor."""
    found: set[int] = set()
    cursor = after
    while (
        part := await store.read("default", claim.run_id, cursor, limit, branch)
    ).latest > cursor:
        assert cursor < part.covered <= part.latest
        previous = cursor
        for one in part.frames:
            assert previous < one.last <= part.covered, "in order, and each of them once"
            found.update(range(max(one.first, after + 1), one.last + 1))
            previous = one.last
        cursor = part.covered
    assert cursor == part.latest == part.covered
    return found


def wanted(frames: Iterable[Frame], branch: int, after: int) -> set[int]:
    return {
        sequence
        for one in frames
        if one.may_hold(branch)
        for sequence in range(one.first, one.last + 1)
        if sequence > after
    }


@pytest.mark.parametrize("seed", range(4))
async def test_nothing_of_a_branch_is_missing_wherever_it_is(
    open_store: Callable[[], Awaitable[RunStore]], seed: int
) -> None:
    chance = random.Random(seed)
    store = await open_store()
    claim, other = await claimed(store), await claimed(store)
    frames = written(seed)
    for number, one in enumerate(frames, 1):
        await store.append(claim, one, b"private")
        if number % 3 == 0:
            await store.append(other, frame(number // 3))
        if number in (20, 40) and isinstance(store, SqliteStore):
            await store._unspool_all()
        if number % 30 == 0:
            for branch in (*BRANCHES, 3):
                after, limit = chance.randint(0, one.last), chance.choice((1, 5_000, 64 * 1024))
                found = await sequences(store, claim, branch, after, limit)
                assert found >= wanted(frames[:number], branch, after)
    last = frames[-1].last + 1
    await store.append(claim, frame(last, outcome=COMPLETED))
    for opened_again in (False, True):
        if opened_again:
            await store.close()
            store = await open_store()
        for branch in (*BRANCHES, 3):
            assert await sequences(store, claim, branch) >= {*wanted(frames, branch, 0), last}
            (end,) = (await store.read("default", claim.run_id, last - 1, ALL, branch)).frames
            assert end.last == last
    await store.close()


async def test_a_branch_that_has_nothing_is_covered_to_the_end(store: RunStore) -> None:
    claim = await claimed(store)
    empty = await store.read("default", claim.run_id, 0, ALL, 5)
    assert (empty.frames, empty.covered, empty.latest) == ((), 0, 0)
    await store.append(claim, Frame(first=1, last=4, data=b"root", branches=frozenset()))
    part = await store.read("default", claim.run_id, 0, ALL, 5)
    assert (part.covered, part.latest, part.ended) == (4, 4, False)
    ahead = await store.read("default", claim.run_id, 9, ALL, 5)
    assert (list(ahead.frames), ahead.latest) == ([], 4)


async def test_a_reader_of_a_branch_misses_nothing_that_is_written_meanwhile(
    store: RunStore,
) -> None:
    claim = await claimed(store)
    frames = written(99)
    found: set[int] = set()

    async def write() -> None:
        for one in frames:
            await store.append(claim, one)

    async def read() -> None:
        cursor = 0
        while cursor < frames[-1].last:
            await store.wait("default", claim.run_id, cursor)
            part: Any = await store.read("default", claim.run_id, cursor, 10_000, 7)
            for one in part.frames:
                assert one.last > cursor
                found.update(range(one.first, one.last + 1))
            assert part.covered > cursor
            cursor = part.covered

    await asyncio.gather(write(), read())
    assert found >= wanted(frames, 7, 0)
