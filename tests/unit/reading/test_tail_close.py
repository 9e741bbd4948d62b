"""Readers that are sent away at the end: none misses what was written before that."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from polos.v1.event_pb2 import AgentFinish, AgentStart
from polos.v1.run_pb2 import RunState
from polos.v1.run_service_pb2 import StreamWorkflowResponse
from polos_client.errors import Draining
from polos_service.reading.tail import Readers
from polos_service.runs.frame import Encoder
from polos_service.runs.lineage import Lineage
from polos_service.store import Claim, Frame
from polos_service.store.sqlite import SqliteStore
from tests.support.stores import first_claim, new_run
from tests.support.tails import response, rest

RUN = new_run(run_id="run")


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SqliteStore]:
    store = await SqliteStore.open(tmp_path / "runs.db")
    await store.create(RUN)
    yield store
    await store.close()


async def begin(store: SqliteStore) -> Claim:
    claim = await first_claim(store, ["agent"])
    data = Encoder(Lineage("run", "agent")).encode(AgentStart(), sequence=1, time=1)
    await store.append(claim, Frame(first=1, last=1, data=data))
    return claim


async def end(store: SqliteStore, claim: Claim) -> None:
    data = Encoder(Lineage("run", "agent")).encode(AgentFinish(), sequence=2, time=2, terminal=True)
    ended = RunState.RUN_STATE_COMPLETED
    await store.append(claim, Frame(first=2, last=2, data=data, outcome=ended))


def sequences(responses: list[bytes]) -> list[int]:
    whole = StreamWorkflowResponse.FromString(b"".join(responses))
    return [event.sequence for event in whole.events]


async def test_a_run_that_ended_before_the_close_is_read_to_its_end(store: SqliteStore) -> None:
    claim = await begin(store)
    readers = Readers(store)
    with readers.tail("default", "run", 0) as tail:
        seen = [await response(tail)]
        await end(store, claim)  # while the reader is busy with what it got
        readers.close()
        seen += await rest(tail)
        assert sequences(seen) == [1, 2]


async def test_a_waiting_reader_of_a_run_that_goes_on_is_sent_away(store: SqliteStore) -> None:
    await begin(store)
    readers = Readers(store)
    with readers.tail("default", "run", 0) as tail:
        seen = [await response(tail)]
        waiting = asyncio.ensure_future(response(tail))
        await asyncio.sleep(0)  # it reads, and finds nothing more
        readers.close()
        with pytest.raises(Draining):
            await waiting
        assert sequences(seen) == [1]


async def test_a_busy_reader_of_a_run_that_goes_on_is_sent_away_at_once(
    store: SqliteStore,
) -> None:
    await begin(store)
    readers = Readers(store, heartbeat=3600)
    with readers.tail("default", "run", 0) as tail:
        await response(tail)
        readers.close()  # while the reader is busy with what it got
        with pytest.raises(Draining):
            await asyncio.wait_for(response(tail), 30)


async def test_a_reader_that_comes_after_the_close_gets_what_there_is(store: SqliteStore) -> None:
    await begin(store)
    readers = Readers(store)
    readers.close()
    with readers.tail("default", "run", 0) as tail:
        assert sequences([await response(tail)]) == [1]
        with pytest.raises(Draining):
            await response(tail)
