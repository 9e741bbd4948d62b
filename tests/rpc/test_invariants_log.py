"""Invariants 1 to 4: the log, its numbers, its readers and its end."""

from __future__ import annotations

import asyncio
from collections import Counter
from pathlib import Path
from typing import Any

import grpc
import pytest
import structlog.testing

from polos.v1 import run_service_pb2 as pb
from polos.v1.run_pb2 import RunState
from polos_client.define.scripted import call, cut, fail, pause, say, turn
from polos_client.define.tool import tool
from polos_service.store import Slice
from polos_service.store.sqlite import SqliteStore
from tests.support.control import Gate, HeldCommits, Thread
from tests.support.service import (
    Served,
    answer_of,
    events_in,
    query,
    scripted,
    serving,
    stored,
    until,
    words,
)
from tests.support.wire import event_bytes


@tool
async def add(a: int, b: int) -> int:
    """Add."""
    return a + b


RICH = scripted(
    turn(say(words(30)), call("add", a=1, b=2), call("add", a=3, b=4)),
    turn(say(["lost ", "words "]), cut(), retried=[say(words(30)), call("nobody")]),
    say(words(30)),
    tools=(add,),
)
"""An agent whose log has every kind of event that a run without sub-agents can have."""


async def test_nothing_is_shown_that_is_not_in_the_log(tmp_path: Path) -> None:
    async with serving(tmp_path, RICH) as served:
        run_id = await served.start(RICH)
        shown: list[bytes] = []
        async for response in served.raw(run_id):
            shown += event_bytes(response)
            assert event_bytes(stored(tmp_path / "runs.db", run_id))[: len(shown)] == shown
        assert len(shown) > 90


async def test_what_is_not_committed_yet_is_shown_to_nobody(tmp_path: Path) -> None:
    gate = Gate()
    agent = scripted(turn(call("gate")), "after", tools=(gate.tool,))
    async with serving(tmp_path, agent) as served:
        run_id = await served.start(agent)
        await gate.reached()
        before = len(event_bytes(stored(served.path, run_id)))
        live = served.raw(run_id, before)
        assert not events_in(await live.read())  # the first response comes at once
        reading = asyncio.create_task(live.read())
        commits = HeldCommits(served.service)
        commits.hold()
        gate.opened.set()
        await until(commits.waiting.is_set, "a commit waits")
        done, _ = await asyncio.wait({reading}, timeout=0.2)
        late = (await served.runs.GetRun(pb.GetRunRequest(run_id=run_id))).run.latest_sequence
        commits.release()
        assert not done, "an event was shown before it was committed"
        assert late == before
        assert events_in(await reading)[0].sequence == before + 1
        live.cancel()


async def test_a_commit_is_durable_against_power_loss(tmp_path: Path) -> None:
    async with serving(tmp_path) as served:
        (level,) = served.store._db.execute("PRAGMA synchronous").fetchone()
        (journal,) = served.store._db.execute("PRAGMA journal_mode").fetchone()
    assert (level, journal) == (2, "wal")


async def test_sequences_are_dense(tmp_path: Path) -> None:
    async with serving(tmp_path, RICH) as served:
        ids = await asyncio.gather(*(served.start(RICH) for _ in range(8)))
        logs = await asyncio.gather(*(served.events(run_id) for run_id in ids))
        for run_id, log in zip(ids, logs, strict=True):
            assert [event.sequence for event in log] == list(range(1, len(log) + 1))
            assert {event.run_id for event in log} == {run_id}


async def test_a_writer_that_lost_its_claim_is_fenced_and_stops(tmp_path: Path) -> None:
    gate = Gate()
    agent = scripted(turn(call("gate")), "after", tools=(gate.tool,))
    async with serving(tmp_path, agent) as served:
        run_id = await served.start(agent)
        await gate.reached()
        assert await served.service._store.claim_run("default", run_id, force=True) is not None
        before = stored(served.path, run_id)
        with structlog.testing.capture_logs() as logs:
            gate.opened.set()
            await until(lambda: served.service._executor.running == 0, "the writer stops")
        assert [entry["event"] for entry in logs] == ["claim_lost"]
        assert stored(served.path, run_id) == before


async def test_replay_is_live_byte_for_byte_from_every_cursor(tmp_path: Path) -> None:
    async with serving(tmp_path, RICH) as served:
        run_id = await served.start(RICH)
        live = [one async for response in served.raw(run_id) for one in event_bytes(response)]
        frames = query(served.path, "SELECT first, last FROM frames WHERE first <= last")
        assert any(first < last for first, last in frames), "no cursor is inside a frame"
        assert event_bytes(stored(served.path, run_id)) == live
        for cursor in range(len(live) + 1):
            replayed = [
                one
                async for response in served.raw(run_id, cursor)
                for one in event_bytes(response)
            ]
            assert replayed == live[cursor:], f"from cursor {cursor}"


class CountingStore:
    """Counts what each call reads of the log."""

    def __init__(self, store: SqliteStore) -> None:
        self._store = store
        self.bytes: Counter[asyncio.Task[Any] | None] = Counter()

    async def read(self, *args: Any) -> Slice:
        part = await self._store.read(*args)
        self.bytes[asyncio.current_task()] += sum(len(frame.data) for frame in part.frames)
        return part

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)


@tool
async def fill() -> str:
    """Return much."""
    return "x" * 400_000


async def test_a_stalled_reader_costs_no_memory_and_delays_nobody(tmp_path: Path) -> None:
    agent = scripted(turn(*(call("fill") for _ in range(60))), "done", tools=(fill,))
    async with serving(tmp_path, agent) as served:
        store = CountingStore(served.store)
        served.readers._store = store
        run_id = await served.start(agent, streaming=False)
        stalled = served.raw(run_id)
        await stalled.initial_metadata()
        await until(lambda: len(store.bytes) == 1, "the stalled reader is served")
        (first,) = store.bytes
        others = await asyncio.gather(*(served.events(run_id) for _ in range(3)))
        assert {len(log) for log in others} == {126}
        log = stored(served.path, run_id)
        assert len(log) > 24_000_000
        assert store.bytes[first] < 12_000_000, "the service read on for one who takes nothing"
        later = [one async for response in stalled for one in event_bytes(response)]
        assert later == event_bytes(log)


ENDINGS = {
    "agent_finish": scripted("fine"),
    "error": scripted(turn("half", fail(retryable=False))),
    "run_cancelled": scripted(turn("half", pause())),
}


@pytest.mark.parametrize("ending", ENDINGS)
async def test_exactly_one_terminal_event_ends_a_run_and_then_the_stream_is_ok(
    tmp_path: Path, ending: str
) -> None:
    agent = ENDINGS[ending]
    async with serving(tmp_path, agent) as served:
        run_id = await served.start(agent)
        live = served.raw(run_id)
        if ending == "run_cancelled":
            await served.runs.CancelRun(pb.CancelRunRequest(run_id=run_id))
        events = [event async for response in live for event in events_in(response)]
        assert answer_of(events).WhichOneof("payload") == ending
        assert await live.code() is grpc.StatusCode.OK
        assert answer_of(events_in(stored(served.path, run_id))) == events[-1]


async def test_a_run_that_takes_too_long_ends_with_one_terminal_event(tmp_path: Path) -> None:
    agent = scripted(turn("half", pause()))
    async with serving(tmp_path, agent) as served:
        stream = await agent.stream(served.client, "Go.", run_timeout_seconds=0.1)
        events = await served.events(stream.id)
        assert answer_of(events).error.reason == 3


async def test_nothing_follows_the_terminal_event(tmp_path: Path) -> None:
    thread = Thread()
    agent = scripted(turn(call("block")), "after", tools=(thread.tool,))
    async with serving(tmp_path, agent) as served:
        run_id = await served.start(agent)
        await until(thread.entered.is_set, "the tool runs")
        ended = await served.runs.CancelRun(pb.CancelRunRequest(run_id=run_id))
        log = stored(served.path, run_id)
        thread.opened.set()
        await until(thread.left.is_set, "the tool has returned")
        await until(lambda: served.service._executor.running == 0, "the run is let go")
        assert ended.run.state == RunState.RUN_STATE_CANCELLED
        assert stored(served.path, run_id) == log
        assert (await latest(served, run_id)) == ended.run.latest_sequence


async def latest(served: Served, run_id: str) -> int:
    """Return the newest sequence of a run."""
    return (await served.runs.GetRun(pb.GetRunRequest(run_id=run_id))).run.latest_sequence
