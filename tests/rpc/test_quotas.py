"""Limits of projects, seen by two projects with keys, on both stores."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sqlite3
import time
from collections.abc import AsyncIterator, Awaitable, Iterator
from pathlib import Path
from typing import Any

import grpc.aio
import pytest
from google.rpc.error_details_pb2 import QuotaFailure, RetryInfo
from grpc_status import rpc_status

from polos.v1 import run_service_pb2 as pb
from polos.v1.error_pb2 import FailureReason
from polos.v1.event_pb2 import Event
from polos.v1.run_pb2 import RunState
from polos_client.calls.status import to_error
from polos_client.define.context import WorkflowContext
from polos_client.define.scripted import call, pause, say, turn, usage
from polos_client.define.tool import tool
from polos_client.define.workflow import workflow
from polos_client.errors import QuotaExceeded, StepExecutionError
from polos_service.store.usage import day_of
from tests.support.access import Admin, Header, guarded
from tests.support.nats import NatsServer
from tests.support.service import Served, scripted, serving, until, words
from tests.support.waits import answer, ask, asking, park_soon, parked, run_of

USED: list[str] = []
"""What the tool has done."""


@tool(description="Notes that it was called")
async def note() -> str:
    USED.append("note")
    return "noted"


QUICK = scripted("fine", id="quick")
LONG = scripted(turn(say(words(2000))), id="long")
ENDLESS = scripted(turn(say("a "), pause(None)), id="endless")
TOOLS = scripted(
    turn(call("note"), usage(input_tokens=30, output_tokens=20)), "done", id="tools", tools=(note,)
)


@workflow(id="family")
async def family(ctx: WorkflowContext) -> list[str]:
    told = []
    for number in range(2):
        try:
            await ctx.step.agent_invoke_and_wait(f"ask-{number}", TOOLS.with_input("Go."))
        except StepExecutionError as error:
            told.append(str(error))
    return told


AGENTS = (QUICK, LONG, ENDLESS, TOOLS, asking, family)


@pytest.fixture(params=["sqlite", "nats"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[dict[str, Any]]:
    """Give the setting that names the store."""
    if request.param == "sqlite":
        yield {}
        return
    with NatsServer(tmp_path) as server:
        yield {"store": server.address().servers[0]}


@contextlib.asynccontextmanager
async def limited(
    folder: Path, place: dict[str, Any], **limits: Any
) -> AsyncIterator[tuple[Served, Header, Header]]:
    """Serve the project `bound`, which has these limits, and `free`, which has none."""
    settings = place | {"project_limits": {"bound": limits}}
    async with guarded(folder, *AGENTS, **settings) as (served, admin):
        yield served, await header(admin, "bound"), await header(admin, "free")


async def header(admin: Admin, project: str) -> Header:
    return await admin.header(project)


async def start(served: Served, agent: str, who: Header, **fields: Any) -> str:
    values: dict[str, Any] = {"agent_id": agent, "input": "Go.", "streaming": True, **fields}
    request = pb.CreateRunRequest(**values)
    return (await served.runs.CreateRun(request, metadata=who)).run.run_id


async def run(served: Served, agent: str, who: Header) -> list[Event]:
    request = pb.StreamRunRequest(agent_id=agent, input="Go.")
    stream = served.runs.StreamRun(request, metadata=who)
    return [event async for response in stream for event in response.events]


def follow(served: Served, run_id: str, who: Header) -> Any:
    return served.runs.StreamWorkflow(
        pb.StreamWorkflowRequest(workflow_run_id=run_id), metadata=who
    )


async def refused(calling: Awaitable[Any], limit: str, value: str, *, waits: bool) -> QuotaExceeded:
    """Return the refusal, which has the details that google.rpc defines."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await calling
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    error = to_error(caught.value, "the service")
    assert isinstance(error, QuotaExceeded)
    assert error.metadata == {"limit": limit, "value": value, "project": "bound"}
    status = rpc_status.from_call(caught.value)  # type: ignore[arg-type]  # of grpc.aio, too
    assert status is not None
    failure = QuotaFailure()
    assert status.details[1].Unpack(failure)
    (violation,) = failure.violations
    assert (violation.subject, violation.quota_id) == ("project:bound", limit)
    assert any(detail.Is(RetryInfo.DESCRIPTOR) for detail in status.details) is waits
    return error


async def test_streams_are_bounded_and_their_places_return(
    tmp_path: Path, place: dict[str, Any]
) -> None:
    async with limited(tmp_path, place, streams=1) as (served, bound, free):
        run_id, other = await start(served, "endless", bound), await start(served, "endless", free)
        for _ in range(3):
            reader = await attached(served, run_id, bound)
            await refused(follow(served, run_id, bound).read(), "streams", "1", waits=True)
            await refused(run(served, "quick", bound), "streams", "1", waits=True)
            readers = [follow(served, other, free) for _ in range(2)]
            for one in readers:
                await one.read()
            for one in (reader, *readers):
                one.cancel()
        listed = await served.runs.ListRuns(pb.ListRunsRequest(), metadata=bound)
        assert len(listed.runs) == 1, "a stream that was refused has started nothing"


async def attached(served: Served, run_id: str, who: Header) -> Any:
    """Return a reader that has a place, as soon as one is free."""
    readers: list[Any] = []

    async def opens() -> bool:
        reader = follow(served, run_id, who)
        try:
            await reader.read()
        except grpc.aio.AioRpcError:
            return False
        readers.append(reader)
        return True

    await until(opens, "a place is free")
    return readers[0]


async def test_large_inputs_are_refused(tmp_path: Path) -> None:
    async with limited(tmp_path, {}, input_bytes=200) as (served, bound, free):
        large = {"input": "s" * 200}
        await refused(start(served, "quick", bound, **large), "input_bytes", "200", waits=False)
        assert await start(served, "quick", free, **large)
        assert await start(served, "quick", bound)


async def test_a_budget_that_ends_in_the_middle_refuses_the_next_model_call(
    tmp_path: Path, place: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    # A call waits for a reset that is minutes away: let it be a day away, whatever the hour.
    day = day_of(time.time_ns()) + 1
    monkeypatch.setattr("polos_service.runs.budget.day_of", lambda _: day)
    USED.clear()
    for restarted in (False, True):
        async with limited(tmp_path, place, tokens_per_day=40) as (served, bound, free):
            events = await run(served, "tools", bound)
            error = events[-1].error
            assert events[-1].terminal
            assert error.reason == FailureReason.FAILURE_REASON_BUDGET_EXHAUSTED
            assert "tokens_per_day is 40" in error.message
            assert "T00:00:00Z" in error.message
            finished = [one.step_finish for one in events if one.HasField("step_finish")]
            told = [(one.step_key, one.attempt, one.HasField("failure")) for one in finished]
            if restarted:
                assert told == [("llm:1", 1, True)]
            else:
                assert told == [("llm:1", 1, False), ("note", 1, False), ("llm:2", 1, True)]
            assert USED == ["note"], "a tool that has run is not undone, and none runs again"
            if restarted:
                assert (await run(served, "tools", free))[-1].HasField("agent_finish")


async def test_a_budget_that_ends_in_a_child_refuses_the_calls_of_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    day = day_of(time.time_ns()) + 1
    monkeypatch.setattr("polos_service.runs.budget.day_of", lambda _: day)
    async with limited(tmp_path, {}, tokens_per_day=40) as (served, bound, _):
        run_id = await start(served, "family", bound, input="")
        events = [event async for one in follow(served, run_id, bound) for event in one.events]
    first, second = json.loads(events[-1].workflow_finish.result_json)
    for one in (first, second):
        assert "tokens_per_day is 40" in one
        assert "T00:00:00Z" in one
    calls = [one.step_finish for one in events if one.step_finish.step_type == "llm"]
    told = [(one.step_key, one.attempt, one.HasField("failure")) for one in calls]
    assert told == [("llm:1", 1, False), ("llm:2", 1, True), ("llm:1", 1, True)]
    assert events[-1].workflow_finish.usage.total_tokens == 50


@pytest.mark.parametrize("limit", [0, 100, 20_000])
async def test_a_log_that_is_full_ends_the_run_with_an_event_that_fits(
    tmp_path: Path, place: dict[str, Any], limit: int
) -> None:
    async with limited(tmp_path, place, log_bytes=limit) as (served, bound, free):
        run_id = await start(served, "long", bound)
        events = [event async for one in follow(served, run_id, bound) for event in one.events]
        assert events[-1].terminal
        assert events[-1].error.reason == FailureReason.FAILURE_REASON_LOG_FULL
        assert f"{limit} bytes" in events[-1].error.message
        size = sum(event.ByteSize() for event in events[:-1])
        assert size <= max(limit, 1)
        run_id = await start(served, "long", free)
        events = [event async for one in follow(served, run_id, free) for event in one.events]
        assert events[-1].HasField("agent_finish")


async def test_runs_at_once_are_bounded_and_the_others_wait(
    tmp_path: Path, place: dict[str, Any]
) -> None:
    async with limited(tmp_path, place, runs=1) as (served, bound, free):
        first = await start(served, "endless", bound)
        reader = follow(served, first, bound)
        await reader.read()
        waiting = await start(served, "quick", bound)
        assert (await run(served, "quick", free))[-1].HasField("agent_finish")
        request = pb.GetRunRequest(run_id=waiting)
        state = (await served.runs.GetRun(request, metadata=bound)).run.state
        assert state == RunState.RUN_STATE_QUEUED
        await served.runs.CancelRun(pb.CancelRunRequest(run_id=first), metadata=bound)
        events = [e async for one in follow(served, waiting, bound) for e in one.events]
        assert events[-1].HasField("agent_finish")
        reader.cancel()


async def test_runs_that_are_suspended_take_no_place_and_are_woken_beyond_the_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    park_soon(monkeypatch)
    async with limited(tmp_path, {}, runs=1, queued=1) as (served, bound, _):
        suspended = []
        for _ in range(3):
            suspended.append(await ask(served, bound, ok=None))
            await parked(served, suspended[-1], bound)
        working = await start(served, "endless", bound)
        reader = follow(served, working, bound)
        await reader.read()
        queued = await start(served, "quick", bound)
        await refused(start(served, "quick", bound), "queued", "1", waits=True)
        for run_id in suspended[:2]:
            await answer(served, run_id, "ok", bound)
        states = await states_of(served, [*suspended, working, queued], bound)
        waiting, running = RunState.RUN_STATE_QUEUED, RunState.RUN_STATE_RUNNING
        parked_ = RunState.RUN_STATE_SUSPENDED
        assert states == [waiting, waiting, parked_, running, waiting]
        await served.runs.CancelRun(pb.CancelRunRequest(run_id=working), metadata=bound)
        for run_id in (*suspended[:2], queued):
            events = [e async for one in follow(served, run_id, bound) for e in one.events]
            assert events[-1].WhichOneof("payload") in ("workflow_finish", "agent_finish")
        assert await states_of(served, suspended[2:], bound) == [parked_]
        reader.cancel()


async def states_of(served: Served, run_ids: list[str], who: Header) -> list[RunState.ValueType]:
    return [(await run_of(served, run_id, who)).state for run_id in run_ids]


async def test_a_payload_counts_as_input(tmp_path: Path) -> None:
    async with limited(tmp_path, {}, input_bytes=200) as (served, bound, free):
        for who in (bound, free):
            asked = ask(served, who, **{"k" * 200: None})
            if who is bound:
                await refused(asked, "input_bytes", "200", waits=False)
            else:
                assert await asked


async def test_stored_bytes_return_when_runs_are_deleted(tmp_path: Path) -> None:
    async with limited(tmp_path, {}, stored_bytes=4_000) as (served, bound, free):
        run_ids = []
        with pytest.raises(grpc.aio.AioRpcError):
            while True:
                events = await run(served, "long", bound)
                run_ids.append(events[0].run_id)
        assert len(run_ids) == 1
        assert stored(served.path, "bound") > 4_000
        await refused(start(served, "quick", bound), "stored_bytes", "4000", waits=False)
        await run(served, "quick", free)
        for run_id in run_ids:
            await served.runs.DeleteRun(pb.DeleteRunRequest(run_id=run_id), metadata=bound)
        await until(lambda: stored(served.path, "bound") == 0, "nothing is counted any more")
        assert await start(served, "quick", bound)


def stored(path: Path, project: str) -> int:
    with contextlib.closing(sqlite3.connect(path)) as db:
        return int(
            db.execute("SELECT stored FROM usage WHERE project = ?", (project,)).fetchone()[0]
        )


async def test_a_client_is_told_at_once_and_does_not_retry(tmp_path: Path) -> None:
    limits = {"*": {"starts_per_minute": 0}}
    async with serving(tmp_path, QUICK, project_limits=limits) as served:
        with pytest.raises(QuotaExceeded) as caught:
            await QUICK.run(served.client, "Go.")
        assert caught.value.metadata["limit"] == "starts_per_minute"
        assert caught.value.retry_after is not None
        assert 0 < caught.value.retry_after <= 60


async def test_a_client_waits_for_a_place_for_its_stream(tmp_path: Path) -> None:
    async with serving(tmp_path, *AGENTS, project_limits={"*": {"streams": 1}}) as served:
        reader = served.raw(await served.start(ENDLESS))
        await reader.read()
        waiting = asyncio.create_task(QUICK.run(served.client, "Go."))
        await asyncio.sleep(0.1)
        assert not waiting.done()
        reader.cancel()
        assert (await waiting).result == "fine"
