"""The use cases, without a server: on the real store, with a caller as a value."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest

from polos.v1.run_pb2 import RunState
from polos_client.deadlines import Deadlines
from polos_client.define.agent import Agent
from polos_client.define.scripted import call, pause, turn
from polos_client.define.tool import tool
from polos_client.errors import (
    AgentNotFound,
    Draining,
    InvalidRequest,
    RequestIdReused,
    RunNotFinished,
    RunNotFound,
)
from polos_client.wire import RESULT_LIMIT
from polos_service.caller import Caller
from polos_service.runs.frame import SECOND
from polos_service.runs.runnable import RunRequest
from polos_service.service import Runs
from polos_service.store import RunQuery
from polos_service.store.sqlite import SqliteStore
from tests.support.agents import catalog, use_cases
from tests.support.runs import executing
from tests.support.service import events_in, kinds, scripted, text_of
from tests.support.stores import soon
from tests.support.tails import rest

ME = Caller(project="mine", principal="me", scopes=frozenset({"*"}))
OTHER = Caller(project="theirs", principal="they", scopes=frozenset({"*"}))


@tool
async def echo(text: str) -> str:
    """Return the text."""
    return text


TALKER = scripted(turn("Hello. ", call("echo", text="x")), "Bye.", tools=(echo,))
WAITING = scripted(turn("Hello. ", pause()))


@asynccontextmanager
async def running(store: SqliteStore, agent: Agent) -> AsyncIterator[Runs]:
    """Give the use cases of a service that runs this agent."""
    agents = catalog(agent)
    async with executing(store, agents) as executor:
        yield use_cases(store, agents, executor)


START = RunRequest(
    caller=ME,
    runnable_id="demo",
    payload=[{"role": "user", "content": "Go."}],
    digest=b"digest",
    size=3,
    model_options={},
    initial_state={},
    deadlines=Deadlines(),
    streaming=True,
)


async def read(runs: Runs, caller: Caller, run_id: str, after: int = 0) -> bytes:
    """Read a run to its end."""
    with runs.tail(caller, run_id, after) as tail:
        return b"".join(await rest(tail))


async def test_a_run_is_started_and_read_to_its_end(store: SqliteStore) -> None:
    async with running(store, TALKER) as runs:
        run_id = await runs.start(START)
        events = events_in(await soon(read(runs, ME, run_id)))
        assert text_of(events) == "Hello. Bye."
        assert kinds(events)[-1] == "agent_finish"
        again = events_in(await soon(read(runs, ME, run_id, after=3)))
        assert again == events[3:]


async def test_a_run_is_returned_with_its_outcome_and_the_results_of_its_tools(
    store: SqliteStore,
) -> None:
    async with running(store, TALKER) as runs:
        run_id = await runs.start(START)
        await soon(read(runs, ME, run_id))
        details = await runs.get(ME, run_id, RESULT_LIMIT)
        assert details.record == await runs.record(ME, run_id)
        assert details.outcome is not None
        assert details.outcome.agent_finish.result == "Bye."
        assert [one.result_json for one in details.tool_results] == ['"x"']


async def test_a_run_is_cancelled_and_returned_with_its_end(store: SqliteStore) -> None:
    async with running(store, WAITING) as runs:
        run_id = await runs.start(START)
        with pytest.raises(RunNotFinished):
            await runs.delete(ME, run_id)
        details = await soon(runs.cancel(ME, run_id))
        assert details.record.state == RunState.RUN_STATE_CANCELLED
        assert details.outcome is not None
        assert details.outcome.WhichOneof("payload") == "run_cancelled"
        await runs.delete(ME, run_id)
        with pytest.raises(RunNotFound):
            await runs.record(ME, run_id)


async def test_a_run_of_another_project_is_not_found(store: SqliteStore) -> None:
    async with running(store, TALKER) as runs:
        run_id = await runs.start(START)
        await soon(read(runs, ME, run_id))
        for answer in (
            runs.record(OTHER, run_id),
            runs.get(OTHER, run_id, RESULT_LIMIT),
            runs.cancel(OTHER, run_id),
            runs.delete(OTHER, run_id),
            read(runs, OTHER, run_id),
        ):
            with pytest.raises(RunNotFound):
                await soon(answer)
        assert not await runs.list(OTHER, RunQuery(limit=10))
        (mine,) = await runs.list(ME, RunQuery(limit=10))
        assert mine.run_id == run_id


async def test_a_request_id_is_the_project_s_own(store: SqliteStore) -> None:
    async with running(store, TALKER) as runs:
        start = replace(START, request_id="r")
        mine = await runs.start(start)
        assert await runs.start(start) == mine
        assert await runs.start(replace(start, caller=OTHER)) != mine
        with pytest.raises(RequestIdReused):
            await runs.start(replace(start, digest=b"another"))


async def test_what_cannot_be_started_leaves_nothing(store: SqliteStore) -> None:
    async with running(store, TALKER) as runs:
        with pytest.raises(AgentNotFound, match="There is no agent or workflow 'nobody'"):
            await runs.start(replace(START, runnable_id="nobody"))
        with pytest.raises(AgentNotFound, match="'echo' is a tool"):
            await runs.start(replace(START, runnable_id="echo"))
        with pytest.raises(InvalidRequest) as refused:
            await runs.start(replace(START, model_options={"base_url": "http://elsewhere"}))
        assert list(refused.value.violations) == ["options.provider_options_json.base_url"]
        runs.drain()
        with pytest.raises(Draining):
            await runs.start(START)
        assert not await runs.list(ME, RunQuery(limit=10))


async def test_the_start_s_deadline_goes_before_the_agent_s(store: SqliteStore) -> None:
    agent = scripted("fine", deadlines=Deadlines(run=100.0))
    agents = catalog(agent)
    runs = use_cases(store, agents)  # nothing takes up what it starts
    for start, seconds in ((START, 100), (replace(START, deadlines=Deadlines(run=7.0)), 7)):
        run_id = await runs.start(start)
        claim = await store.claim_run("mine", run_id)
        assert claim is not None
        assert claim.deadline is not None
        assert claim.deadline - claim.create_time == seconds * SECOND


async def test_readers_are_sent_away_at_the_end(store: SqliteStore) -> None:
    async with running(store, WAITING) as runs:
        run_id = await runs.start(START)
        reading = asyncio.ensure_future(read(runs, ME, run_id))
        await asyncio.sleep(0)
        runs.close()
        with pytest.raises(Draining):
            await soon(reading)
