"""What an event costs, counted in work and not in time: a lost optimisation fails here."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from sqlite3 import Connection
from typing import Any

import pytest

from polos.v1.run_service_pb2 import StreamRunResponse
from polos_client.define.scripted import say, turn
from polos_service.reading.tail import READ_LIMIT, Readers
from polos_service.runs import frame as frames
from polos_service.runs.clock import SystemClock
from polos_service.store import Claim, RunQuery
from polos_service.store.sqlite import SqliteStore
from tests.support.runs import text, writing
from tests.support.service import Served, events_in, scripted, serving, words
from tests.support.stores import HeldStore, claimed, ended, frame, soon, until
from tests.support.tails import response

TOKENS = 300

APPEND_STATEMENTS = 1
"""Of frames that are committed together: a transaction of one statement."""


class Wire:
    """Stands in for the response message of `runs.frame`, and counts what is done with it."""

    def __init__(self) -> None:
        self.encoded = 0
        self.parsed = 0

    def __call__(self, **fields: Any) -> Counted:
        return Counted(self, StreamRunResponse(**fields))

    def FromString(self, data: bytes) -> StreamRunResponse:  # noqa: N802 - protobuf's name
        response = StreamRunResponse.FromString(data)
        self.parsed += len(response.events)
        return response


class Counted:
    """A response that tells the wire how many events were serialised with it."""

    def __init__(self, wire: Wire, response: StreamRunResponse) -> None:
        self._wire = wire
        self._response = response
        self.events = response.events

    def SerializeToString(self) -> bytes:  # noqa: N802 - protobuf's name
        self._wire.encoded += len(self.events)
        return self._response.SerializeToString()


@pytest.fixture
def wire(monkeypatch: pytest.MonkeyPatch) -> Wire:
    counting = Wire()
    monkeypatch.setattr(frames, "StreamRunResponse", counting)
    return counting


async def streamed(served: Served, run_id: str, after: int = 0) -> list[bytes]:
    """Read a run to its end; return the messages as bytes."""
    return [message async for message in served.raw(run_id, after)]


async def test_an_event_is_serialised_once_and_parsed_by_nobody_in_the_service(
    wire: Wire, tmp_path: Path
) -> None:
    agent = scripted(turn(say(words(TOKENS))))
    async with serving(tmp_path, agent) as served:
        live = events_in(b"".join(await streamed(served, await served.start(agent))))
    assert len(live) > TOKENS
    assert (wire.encoded, wire.parsed) == (len(live), 0)


async def test_more_readers_and_replays_serialise_and_parse_nothing(
    wire: Wire, tmp_path: Path
) -> None:
    agent = scripted(turn(say(words(TOKENS))))
    async with serving(tmp_path, agent) as served:
        run_id = await served.start(agent)
        messages = await asyncio.gather(*(streamed(served, run_id) for _ in range(5)))
        events = len(events_in(b"".join(messages[0])))
        again = await streamed(served, run_id)
    assert len(events_in(b"".join(again))) == events
    assert (wire.encoded, wire.parsed) == (events, 0)


async def test_a_replay_takes_as_few_messages_as_its_bytes_allow(tmp_path: Path) -> None:
    agent = scripted(turn(say(words(TOKENS))))
    async with serving(tmp_path, agent) as served:
        run_id = await served.start(agent)
        size = sum(map(len, await streamed(served, run_id)))
        assert size < READ_LIMIT
        assert len(await streamed(served, run_id)) == 1


async def test_a_cursor_inside_a_frame_parses_nothing(wire: Wire, store: SqliteStore) -> None:
    claim = await claimed(store)
    for first in range(1, 51, 10):
        await store.append(claim, frame(first, first + 9, data_of(first, 10)))
    with Readers(store).tail(claim.project, claim.run_id, 14) as tail:
        assert [one.sequence for one in events_in(await response(tail))] == list(range(15, 51))
        assert (wire.parsed, wire.encoded) == (0, 0)


def data_of(first: int, events: int) -> bytes:
    """Return a frame's bytes."""
    response = StreamRunResponse()
    for sequence in range(first, first + events):
        response.events.add(sequence=sequence, text_delta=text("x"))
    return response.SerializeToString()


async def test_appends_that_wait_for_a_commit_share_the_next_one(store: SqliteStore) -> None:
    claims = [await claimed(store) for _ in range(50)]
    with traced(store._db) as statements:
        async with busy(store):
            appends = [asyncio.ensure_future(store.append(one, frame(1))) for one in claims]
            await asyncio.sleep(0)
        await soon(asyncio.gather(*appends))
    assert statements.count("COMMIT") == 1, "of what kept the thread busy"
    shared = statements[statements.index("COMMIT") + 1 :]
    assert len(shared) <= APPEND_STATEMENTS, "frames that share a commit share its statements"


@contextmanager
def traced(db: Connection) -> Iterator[list[str]]:
    """Collect the statements of a connection."""
    statements: list[str] = []
    db.set_trace_callback(statements.append)
    try:
        yield statements
    finally:
        db.set_trace_callback(None)


class busy:  # noqa: N801 - reads as what it is: `async with busy(store)`
    """Keeps the store's thread inside a transaction for as long as the block."""

    def __init__(self, store: SqliteStore) -> None:
        self._store = store
        self._begun, self._leave = threading.Event(), threading.Event()

    async def __aenter__(self) -> None:
        self._done = self._store._committer.submit(self._hold)
        await until(self._begun.is_set)

    async def __aexit__(self, *raised: object) -> None:
        self._leave.set()
        await soon(self._done)

    def _hold(self, _: Connection) -> None:
        self._begun.set()
        assert self._leave.wait(20)


async def test_a_thousand_events_emitted_during_an_append_are_one_more_append(
    tmp_path: Path,
) -> None:
    store = await HeldStore.open(tmp_path / "runs.db")
    try:
        claim = await claimed(store)
        async with writing(store, claim, SystemClock()) as writer:
            writer.emit(text("first"))
            await until(lambda: len(store.asked) == 1)
            for _ in range(1000):
                writer.emit(text("x"))
            store.allow_all()
            await soon(writer.flush())
        assert [(one.first, one.last) for one in store.asked] == [(1, 1), (2, 1001)]
    finally:
        await store.close()


async def test_an_append_costs_the_same_at_the_end_of_a_long_run(store: SqliteStore) -> None:
    claim = await claimed(store)
    young = await cost_of_append(store, claim, 1)
    await asyncio.gather(*(store.append(claim, frame(at)) for at in range(2, 2001)))
    old = await cost_of_append(store, claim, 2001)
    assert len(young[0]) == len(old[0]) <= APPEND_STATEMENTS
    assert old[1] <= young[1] * 1.5, "SQLite works through the events before"


async def cost_of_append(store: SqliteStore, claim: Claim, at: int) -> tuple[list[str], int]:
    """Append a frame; return its statements, and the steps that SQLite made for them."""
    steps = 0

    def count() -> int:
        nonlocal steps
        steps += 1
        return 0

    with traced(store._db) as statements:
        store._db.set_progress_handler(count, 1)
        await store.append(claim, frame(at))
        store._db.set_progress_handler(None, 1)
    return statements, steps


async def test_a_reader_that_keeps_up_asks_nothing_however_long_the_run(
    store: SqliteStore,
) -> None:
    claim = await claimed(store)
    await store.append(claim, frame(1))
    young = await cost_of_wake(store, claim, 1)
    await asyncio.gather(*(store.append(claim, frame(at)) for at in range(3, 1002)))
    old = await cost_of_wake(store, claim, 1001)
    assert young == old == 0


async def cost_of_wake(store: SqliteStore, claim: Claim, newest: int) -> int:
    """Wake a reader that has seen all; return the statements until it has sent the news."""
    with Readers(store).tail(claim.project, claim.run_id, newest - 1) as tail:
        await response(tail)
        with traced(store._reader) as statements:
            news = asyncio.ensure_future(response(tail))
            await asyncio.sleep(0)
            await store.append(claim, frame(newest + 1))
            await soon(news)
        return len(statements)


async def test_readers_of_a_silent_run_ask_nothing(store: SqliteStore) -> None:
    claim = await claimed(store)
    await store.append(claim, frame(1))
    with ExitStack() as stack:
        readers = Readers(store)
        tails = [
            stack.enter_context(readers.tail(claim.project, claim.run_id, 0)) for _ in range(20)
        ]
        for tail in tails:
            await response(tail)
        waits = [asyncio.ensure_future(response(tail)) for tail in tails]
        await asyncio.sleep(0)
        other = await claimed(store)
        with traced(store._reader) as statements:
            for at in range(1, 11):
                await store.append(other, frame(at))
        assert statements == []
        await store.append(claim, frame(2))
        await soon(asyncio.gather(*waits))


async def test_listing_runs_touches_a_page_of_them(store: SqliteStore) -> None:
    few = await cost_of_list(store, 60)
    many = await cost_of_list(store, 600)
    assert many <= few * 1.2, "a listing works through all runs"


async def cost_of_list(store: SqliteStore, runs: int) -> int:
    """Store more runs; return the steps that SQLite makes for a page of them."""
    await asyncio.gather(*(ended(store) for _ in range(runs)))
    steps = 0

    def count() -> int:
        nonlocal steps
        steps += 1
        return 0

    store._reader.set_progress_handler(count, 1)
    assert len(await store.list("default", RunQuery(limit=50, workflow_id="agent"))) == 50
    store._reader.set_progress_handler(None, 1)
    return steps
