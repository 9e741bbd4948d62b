"""The writer of a run's log, on a store whose appends are held back."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from polos.v1.error_pb2 import FailureReason
from polos.v1.run_pb2 import RunState
from polos_service.errors import Fenced, Finished, StepError
from polos_service.limits import EVENT_LIMIT
from polos_service.runs.clock import SystemClock
from polos_service.runs.frame import Encoder, decode
from polos_service.runs.lineage import Lineage, Origin
from polos_service.runs.writer import BACKLOG_LIMIT, FRAME_LIMIT, Writer
from polos_service.store import Claim
from tests.support.runs import DONE, FakeClock, text, writing
from tests.support.stores import (
    COMPLETED,
    HeldStore,
    claimed,
    events_of,
    history,
    settled,
    soon,
    until,
)


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[HeldStore]:
    opened = await HeldStore.open(tmp_path / "runs.db")
    yield opened
    await opened.close()


@pytest.fixture
async def claim(store: HeldStore) -> Claim:
    return await claimed(store)


@pytest.fixture
async def writer(store: HeldStore, claim: Claim) -> AsyncIterator[Writer]:
    async with writing(store, claim, SystemClock()) as opened:
        yield opened


def spans(store: HeldStore) -> list[tuple[int, int]]:
    return [(one.first, one.last) for one in store.asked]


async def test_events_emitted_during_an_append_travel_in_one_frame(
    store: HeldStore, writer: Writer
) -> None:
    writer.emit(text("a"))
    await until(lambda: len(store.asked) == 1)
    for content in "bcd":
        writer.emit(text(content))
    await settled()
    assert spans(store) == [(1, 1)]
    store.allow(1)
    await until(lambda: len(store.asked) == 2)
    assert spans(store) == [(1, 1), (2, 4)]
    assert [event.text_delta.content for event in decode(store.asked[1].data)] == ["b", "c", "d"]


async def test_an_event_alone_is_a_frame_at_once(store: HeldStore, writer: Writer) -> None:
    store.allow_all()
    for number in range(1, 6):
        writer.emit(text("x"))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert spans(store)[-1] == (number, number), "no timer gathers events"
        await writer.flush()


async def test_an_event_says_which_run_where_and_when(store: HeldStore, claim: Claim) -> None:
    store.allow_all()
    clock = FakeClock()
    async with writing(store, claim, clock) as writer:
        writer.emit(text("hello"))
        await soon(writer.flush())
    (event,) = await events_of(store, claim.run_id)
    assert (event.run_id, event.workflow_id, event.sequence) == (claim.run_id, "agent", 1)
    assert event.create_time.ToNanoseconds() == clock.time
    assert (event.text_delta.content, event.terminal) == ("hello", False)


async def test_flush_waits_until_all_that_was_emitted_is_durable(
    store: HeldStore, writer: Writer
) -> None:
    writer.emit(text("a"))
    await until(lambda: len(store.asked) == 1)
    writer.emit(text("b"))
    flushing = asyncio.create_task(writer.flush())
    store.allow(1)
    await until(lambda: len(store.asked) == 2)
    assert not flushing.done()
    store.allow(1)
    await soon(flushing)
    assert store.asked[1].last == 2


async def test_an_append_wakes_nobody_whose_events_are_not_durable(
    store: HeldStore, writer: Writer
) -> None:
    writer.emit(text("a"))
    await until(lambda: len(store.asked) == 1)
    writer.emit(text("b"))
    flush: Any = writer.flush()
    flushing = asyncio.create_task(flush)
    await settled()
    waits_for = flush.cr_await
    store.allow(1)
    await until(lambda: len(store.asked) == 2)
    await settled()
    assert flush.cr_await is waits_for is not None
    store.allow(1)
    await soon(flushing)


async def test_a_frame_tells_which_branches_its_events_belong_to(
    store: HeldStore, claim: Claim, writer: Writer
) -> None:
    child = Lineage(f"{claim.run_id}:2", "sub", Origin(claim.run_id, "a", 1))
    inner = Lineage(f"{claim.run_id}:3", "sub", Origin(child.run_id, "a", 1))
    encoders = {2: Encoder(child, frozenset({2})), 3: Encoder(inner, frozenset({2, 3}))}
    writer.emit(text("the root's"))
    await until(lambda: len(store.asked) == 1)
    writer.emit(text("the child's"), encoder=encoders[2])
    store.allow(1)
    await until(lambda: len(store.asked) == 2)
    writer.emit(text("the root's"))
    writer.emit(text("that of the run below it"), encoder=encoders[3])
    store.allow_all()
    await soon(writer.flush())
    assert [one.branches for one in store.asked] == [frozenset(one) for one in ((), (2,), (2, 3))]


async def test_room_waits_only_beyond_the_backlog_s_bound(store: HeldStore, writer: Writer) -> None:
    piece = text("x" * 100_000)
    for _ in range(BACKLOG_LIMIT // 100_200):
        writer.emit(piece)
        await asyncio.wait_for(writer.room(), 0.5)
    writer.emit(piece)
    waiting = asyncio.create_task(writer.room())
    await until(lambda: len(store.asked) == 1)
    await settled()
    assert not waiting.done()
    store.allow(1)
    await soon(waiting)


async def test_a_frame_takes_no_second_event_beyond_its_limit(
    store: HeldStore, writer: Writer
) -> None:
    writer.emit(text("first"))
    await until(lambda: len(store.asked) == 1)
    for size in (FRAME_LIMIT // 2 - 500, FRAME_LIMIT // 2 - 500, 10_000, EVENT_LIMIT - 1000, 10):
        writer.emit(text("x" * size))
    store.allow_all()
    await soon(writer.flush())
    assert spans(store) == [(1, 1), (2, 3), (4, 4), (5, 5), (6, 6)]


async def test_private_bytes_count_for_a_frame_s_limit(store: HeldStore, writer: Writer) -> None:
    writer.emit(text("first"))
    await until(lambda: len(store.asked) == 1)
    for _ in range(3):
        writer.emit(text("small"), b"x" * (FRAME_LIMIT // 2 - 500))
    store.allow_all()
    await soon(writer.flush())
    assert spans(store) == [(1, 1), (2, 3), (4, 4)]


async def test_an_event_over_the_limit_is_refused_and_takes_no_number(
    store: HeldStore, claim: Claim, writer: Writer
) -> None:
    store.allow_all()
    writer.emit(text("a"))
    with pytest.raises(StepError, match=str(EVENT_LIMIT)) as refused:
        writer.emit(text("x" * EVENT_LIMIT))
    assert refused.value.reason == FailureReason.FAILURE_REASON_OUTPUT_TOO_LARGE
    with pytest.raises(StepError):
        writer.emit(text("x" * EVENT_LIMIT), outcome=COMPLETED)
    writer.emit(text("b"))
    await soon(writer.flush())
    events = await events_of(store, claim.run_id)
    assert [(one.sequence, one.text_delta.content) for one in events] == [(1, "a"), (2, "b")]


async def test_the_largest_event_passes(store: HeldStore, claim: Claim) -> None:
    store.allow_all()
    size = EVENT_LIMIT - 1000
    async with writing(store, claim, FakeClock()) as writer:  # a time has more bytes than another
        writer.emit(text("x" * size))
        writer.emit(text("x" * (EVENT_LIMIT - (len_of_event(store, claim) - size))))
        await soon(writer.flush())
    assert len(store.asked[-1].data) == EVENT_LIMIT


def len_of_event(store: HeldStore, claim: Claim) -> int:
    """Return the length of an event of EVENT_LIMIT - 1000 characters in this run."""
    probe = Writer(store, claim, FakeClock())
    probe.emit(text("x" * (EVENT_LIMIT - 1000)))
    return probe._backlog


async def test_nothing_follows_the_terminal_event(store: HeldStore, claim: Claim) -> None:
    store.allow_all()
    writer = Writer(store, claim, SystemClock())
    writer.emit(text("a"))
    writer.emit(DONE, outcome=COMPLETED)
    with pytest.raises(Finished, match=claim.run_id):
        writer.emit(text("b"))
    with pytest.raises(Finished, match=claim.run_id):
        writer.emit(DONE, outcome=RunState.RUN_STATE_CANCELLED)
    await soon(writer.ended)
    events = await events_of(store, claim.run_id)
    assert [one.terminal for one in events] == [False, True]
    assert (await store.get("default", claim.run_id)).state == COMPLETED


async def test_only_the_frame_with_the_terminal_event_ends_the_run(
    store: HeldStore, claim: Claim
) -> None:
    store.allow_all()
    writer = Writer(store, claim, SystemClock())
    for _ in range(3):
        writer.emit(text("x" * (FRAME_LIMIT - 1000)))
    writer.emit(DONE, outcome=COMPLETED)
    await soon(writer.ended)
    assert [one.outcome for one in store.asked] == [None, None, COMPLETED]


async def test_private_state_is_stored_with_its_event_and_not_in_it(
    store: HeldStore, claim: Claim, writer: Writer
) -> None:
    store.allow_all()
    writer.emit(text("a"), b"one\n")
    writer.emit(text("b"))
    writer.emit(text("c"), b"two\n")
    await soon(writer.flush())
    entries = await history(store, claim)
    assert b"".join(entry.private for entry in entries[1:]) == b"one\ntwo\n"
    assert b"one" not in b"".join(entry.data for entry in entries)


async def test_a_writer_continues_where_the_log_ends(store: HeldStore, claim: Claim) -> None:
    store.allow_all()
    async with writing(store, claim, SystemClock()) as first:
        first.emit(text("a"))
        await soon(first.flush())
    await store.release(claim)
    again = await store.claim_run("default", claim.run_id)
    assert again is not None
    async with writing(store, again, SystemClock()) as second:
        second.emit(text("b"))
        await soon(second.flush())
    assert [one.sequence for one in await events_of(store, claim.run_id)] == [1, 2]


async def test_a_fenced_writer_stops_and_says_so(store: HeldStore, claim: Claim) -> None:
    store.allow_all()
    writer = Writer(store, claim, SystemClock())
    await store.release(claim)
    writer.emit(text("too late"))
    with pytest.raises(Fenced):
        await soon(writer.ended)
    assert await events_of(store, claim.run_id) == []
