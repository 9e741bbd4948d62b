"""What one token costs the loop, from the writer to the reader's response: counted, not timed."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from polos_service.reading.tail import Readers, Tail
from polos_service.runs.clock import SystemClock
from polos_service.runs.writer import Writer
from polos_service.store.sqlite import SqliteStore
from polos_service.store.sqlite.committer import MAX_DISTANCE, WINDOW, Pace
from tests.support.runs import opened, text, writing
from tests.support.stores import claimed, soon
from tests.support.tails import response

TOKENS = 50

CALLBACKS = 8
"""Callbacks of a token that is alone: append, hand-over, answer, the writer's, the reader's, and
those of this test."""


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SqliteStore]:
    async with opened(tmp_path) as store:
        yield store


@contextmanager
def counted(*names: str) -> Iterator[Counter[str]]:
    """Count how often these methods of the loop are called."""
    loop: Any = asyncio.get_running_loop()
    counts: Counter[str] = Counter()

    def counting(name: str) -> Any:
        method = getattr(loop, name)

        def call(*args: Any, **options: Any) -> Any:
            counts[name] += 1
            return method(*args, **options)

        return call

    for name in names:
        setattr(loop, name, counting(name))
    try:
        yield counts
    finally:
        for name in names:
            delattr(loop, name)


async def pass_on(writer: Writer, tail: Tail) -> None:
    """Emit a token, and read it."""
    writer.emit(text("x"))
    await response(tail)


async def test_a_token_alone_takes_no_task_and_no_timer(store: SqliteStore) -> None:
    claim = await claimed(store)
    readers = Readers(store)
    async with writing(store, claim, SystemClock()) as writer:
        with readers.tail(claim.project, claim.run_id, 0) as tail:
            await pass_on(writer, tail)
            store._committer._pace = Batches()
            with counted("create_task", "call_later", "call_at", "call_soon") as counts:
                for _ in range(TOKENS):
                    await pass_on(writer, tail)
    assert counts["create_task"] == counts["call_later"] == counts["call_at"] == 0
    assert counts["call_soon"] <= TOKENS * CALLBACKS


class Batches(Pace):
    """Holds nothing back, and notes how many operations each commit has."""

    def __init__(self) -> None:
        super().__init__()
        self.sizes: list[int] = []

    def begin(self, now: float, operations: int) -> None:
        self.sizes.append(operations)


async def test_tokens_of_many_runs_in_one_turn_are_one_batch(store: SqliteStore) -> None:
    claims = [await claimed(store) for _ in range(20)]
    store._committer._pace = batches = Batches()
    writers = [Writer(store, claim, SystemClock()) for claim in claims]
    for writer in writers:
        writer.emit(text("a"))
        writer.emit(text("b"))
    await soon(asyncio.gather(*(writer.flush() for writer in writers)))
    assert batches.sizes == [20], "one hand-over, with one append for each run"
    for writer in writers:
        writer.close()


def test_commits_keep_no_distance_while_they_are_rare() -> None:
    pace, now = Pace(), 1.0
    for _ in range(100):
        pace.begin(now, 1)
        assert pace.wait(now) < 0.001
        now += 0.02
        assert pace.wait(now) <= 0


def test_commits_keep_a_distance_that_grows_with_what_comes_and_is_bounded() -> None:
    found = []
    for each in (5, 50, 5000):
        pace, now = Pace(), 1.0
        for _ in range(200):
            pace.begin(now, each)
            now += 0.005
        found.append(pace.wait(now - 0.005))
    assert found[0] < found[1] < found[2] <= MAX_DISTANCE
    assert found[2] == pytest.approx(MAX_DISTANCE)


def test_after_a_burst_commits_are_at_once_again() -> None:
    pace, now = Pace(), 1.0
    for _ in range(100):
        pace.begin(now, 1000)
        now += 0.005
    now += WINDOW
    pace.begin(now, 1)
    assert pace.wait(now) < MAX_DISTANCE
    now += WINDOW
    pace.begin(now, 1)
    assert pace.wait(now) < 0.001
