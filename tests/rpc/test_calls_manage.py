"""StreamWorkflow's cursors, and the calls that look at runs and agents and manage them."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from pydantic import BaseModel

from polos.v1 import agent_service_pb2 as agents_pb
from polos.v1 import run_service_pb2 as pb
from polos.v1.run_pb2 import Run, RunOptions, RunState
from polos_client.calls.status import to_error
from polos_client.define.context import WorkflowContext
from polos_client.define.scripted import call, fail, pause, say, turn
from polos_client.define.state import WorkflowState
from polos_client.define.tool import tool
from polos_client.define.workflow import workflow
from polos_client.errors import (
    CallError,
    CursorAhead,
    InvalidRequest,
    RunNotFinished,
    RunNotFound,
)
from tests.support.control import Gate
from tests.support.service import Served, query, scripted, serving, until, words

FINE = scripted(turn(say(words(20))))
FOREVER = scripted(turn("half", pause()), id="forever")


async def refused(answer: Any) -> CallError:
    """Return what a call was refused with."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await answer
    meaning = to_error(caught.value, "the service")
    assert isinstance(meaning, CallError), meaning
    return meaning


async def get(served: Served, run_id: str) -> Run:
    """Return a run."""
    return (await served.runs.GetRun(pb.GetRunRequest(run_id=run_id))).run


async def test_a_run_that_does_not_exist_is_not_found(tmp_path: Path) -> None:
    async with serving(tmp_path) as served:
        for answer in (
            served.runs.StreamWorkflow(pb.StreamWorkflowRequest(workflow_run_id="no")).read(),
            served.runs.GetRun(pb.GetRunRequest(run_id="no")),
            served.runs.CancelRun(pb.CancelRunRequest(run_id="no")),
            served.runs.DeleteRun(pb.DeleteRunRequest(run_id="no")),
        ):
            error = await refused(answer)
            assert type(error) is RunNotFound
            assert error.metadata == {"run_id": "no"}


async def test_a_cursor_outside_of_the_log_is_refused(tmp_path: Path) -> None:
    async with serving(tmp_path, FINE) as served:
        run_id = await served.start(FINE)
        latest = len(await served.events(run_id))
        negative = await refused(served.raw(run_id, -1).read())
        assert isinstance(negative, InvalidRequest)
        assert list(negative.violations) == ["after_sequence"]
        for cursor in (latest + 1, 2**63 - 1):
            live = served.raw(run_id, cursor)
            error = await refused(live.read())
            assert await live.code() is grpc.StatusCode.OUT_OF_RANGE
            assert type(error) is CursorAhead
            assert error.metadata == {
                "run_id": run_id,
                "after_sequence": str(cursor),
                "latest_sequence": str(latest),
            }


async def test_a_cursor_at_the_terminal_event_ends_at_once_with_no_event(tmp_path: Path) -> None:
    async with serving(tmp_path, FINE) as served:
        run_id = await served.start(FINE)
        latest = len(await served.events(run_id))
        live = served.raw(run_id, latest)
        assert [response async for response in live] == []
        assert await live.code() is grpc.StatusCode.OK


async def test_a_stream_from_any_cursor_begins_with_the_event_after_it(tmp_path: Path) -> None:
    async with serving(tmp_path, FINE) as served:
        run_id = await served.start(FINE)
        whole = await served.events(run_id)
        for cursor in range(len(whole)):
            assert await served.events(run_id, cursor) == whole[cursor:]


async def test_get_run_returns_a_run_as_it_stands(tmp_path: Path) -> None:
    gate = Gate()
    failing = Gate("failing")
    agent = scripted(
        turn(call("gate"), call("failing", raw="{")), "after", tools=(gate.tool, failing.tool)
    )
    async with serving(tmp_path, agent) as served:
        run_id = await served.start(agent)
        await gate.reached()
        run = await get(served, run_id)
        assert (run.state, run.HasField("outcome")) == (RunState.RUN_STATE_RUNNING, False)
        assert not run.HasField("finish_time")
        assert run.create_time.ToNanoseconds() <= run.start_time.ToNanoseconds()
        gate.opened.set()
        events = await served.events(run_id)
        run = await get(served, run_id)
        assert run.state == RunState.RUN_STATE_COMPLETED
        assert run.start_time.ToNanoseconds() <= run.finish_time.ToNanoseconds()
        assert (run.outcome, run.latest_sequence) == (events[-1], len(events))
        results = {one.step_key: one for one in run.tool_results}
        assert results["gate"].result_json == '"opened"'
        assert results["failing"].tool_call.arguments_json == "{"
        assert "JSON" in results["failing"].failure.message
        assert run.tool_results_omitted == 0


async def test_list_runs_pages_from_the_newest(tmp_path: Path) -> None:
    async with serving(tmp_path, FINE) as served:
        ids = [await served.start(FINE) for _ in range(7)]
        listed: list[str] = []
        token = ""
        sizes: list[int] = []
        while len(sizes) < 4 and (token or not sizes):
            request = pb.ListRunsRequest(page_size=3, page_token=token)
            page = await served.runs.ListRuns(request)
            sizes.append(len(page.runs))
            listed += [run.run_id for run in page.runs]
            token = page.next_page_token
            assert not any(run.HasField("outcome") or run.tool_results for run in page.runs)
        assert (listed, sizes) == (ids[::-1], [3, 3, 1])


async def test_a_page_has_50_runs_by_default_and_1000_at_most(tmp_path: Path) -> None:
    async with serving(tmp_path, FINE, max_runs=1) as served:
        await asyncio.gather(*(served.start(FINE) for _ in range(60)))
        assert len((await served.runs.ListRuns(pb.ListRunsRequest())).runs) == 50
        page = await served.runs.ListRuns(pb.ListRunsRequest(page_size=2**31 - 1))
        assert (len(page.runs), page.next_page_token) == (60, "")
        for answer in (
            served.runs.ListRuns(pb.ListRunsRequest(page_size=-1)),
            served.agents.ListAgents(agents_pb.ListAgentsRequest(page_size=-1)),
        ):
            error = await refused(answer)
            assert isinstance(error, InvalidRequest)
            assert list(error.violations) == ["page_size"]


async def test_every_filter_that_is_set_must_hold(tmp_path: Path) -> None:
    broken = scripted(fail(retryable=False), id="broken")
    async with serving(tmp_path, FINE, broken) as served:
        first = await served.start(FINE, options=RunOptions(session_id="s", user_id="u"))
        second = await served.start(FINE, options=RunOptions(session_id="s", user_id="v"))
        third = await served.start(broken, options=RunOptions(session_id="t", user_id="u"))
        for run_id in (first, second, third):
            await served.events(run_id)
        between = (await get(served, second)).create_time
        failed = RunState.RUN_STATE_FAILED
        for filters, ids in (
            ({}, [third, second, first]),
            ({"workflow_id": "demo"}, [second, first]),
            ({"session_id": "s"}, [second, first]),
            ({"user_id": "u"}, [third, first]),
            ({"user_id": "u", "session_id": "s"}, [first]),
            ({"state": failed}, [third]),
            ({"state": failed, "workflow_id": "demo"}, []),
            ({"created_from": between}, [third, second]),
            ({"created_before": between}, [first]),
            ({"created_from": between, "created_before": between}, []),
            ({"user_id": "nobody"}, []),
        ):
            page = await served.runs.ListRuns(pb.ListRunsRequest(**filters))
            assert [run.run_id for run in page.runs] == ids, filters


@pytest.mark.parametrize("field", ["created_from", "created_before"])
@pytest.mark.parametrize("time", [Timestamp(seconds=2**62), Timestamp(nanos=-1)], ids=str)
async def test_a_time_that_is_none_is_refused(tmp_path: Path, field: str, time: Timestamp) -> None:
    async with serving(tmp_path) as served:
        request = pb.ListRunsRequest()
        getattr(request, field).CopyFrom(time)
        error = await refused(served.runs.ListRuns(request))
        assert isinstance(error, InvalidRequest)
        assert list(error.violations) == [field]


async def test_a_time_far_from_now_is_a_time(tmp_path: Path) -> None:
    first, last = Timestamp(seconds=-62_135_596_800), Timestamp(seconds=253_402_300_799)
    async with serving(tmp_path, FINE) as served:
        run_id = await served.start(FINE)
        request = pb.ListRunsRequest(created_from=first, created_before=last)
        assert [run.run_id for run in (await served.runs.ListRuns(request)).runs] == [run_id]


async def test_cancel_run_returns_the_ended_run_and_leaves_an_ended_one_alone(
    tmp_path: Path,
) -> None:
    async with serving(tmp_path, FINE, FOREVER) as served:
        run_id = await served.start(FOREVER)
        ended = (await served.runs.CancelRun(pb.CancelRunRequest(run_id=run_id))).run
        assert ended.state == RunState.RUN_STATE_CANCELLED
        assert ended.outcome.HasField("run_cancelled")
        again = (await served.runs.CancelRun(pb.CancelRunRequest(run_id=run_id))).run
        assert again == ended
        finished = await served.start(FINE)
        await served.events(finished)
        before = await get(served, finished)
        cancelled = await served.runs.CancelRun(pb.CancelRunRequest(run_id=finished))
        assert cancelled.run == before


async def test_beyond_the_limit_runs_queue_and_can_be_cancelled_there(tmp_path: Path) -> None:
    gate = Gate()
    agent = scripted(turn(call("gate")), tools=(gate.tool,), id="busy")
    async with serving(tmp_path, agent, FINE, max_runs=1) as served:
        busy = await served.start(agent)
        await gate.reached()
        queued, next_one = [await served.start(FINE) for _ in range(2)]
        for run_id in (queued, next_one):
            run = await get(served, run_id)
            assert (run.state, run.latest_sequence) == (RunState.RUN_STATE_QUEUED, 0)
            assert not run.HasField("start_time")
        ended = (await served.runs.CancelRun(pb.CancelRunRequest(run_id=queued))).run
        assert (ended.state, ended.latest_sequence) == (RunState.RUN_STATE_CANCELLED, 1)
        assert (await get(served, next_one)).state == RunState.RUN_STATE_QUEUED
        gate.opened.set()
        assert (await served.events(next_one))[-1].HasField("agent_finish")
        assert (await get(served, busy)).state == RunState.RUN_STATE_FAILED


async def test_delete_run_removes_an_ended_run_whole(tmp_path: Path) -> None:
    async with serving(tmp_path, FINE) as served:
        kept, run_id = await served.start(FINE), await served.start(FINE)
        for one in (kept, run_id):
            await served.events(one)
        await served.runs.DeleteRun(pb.DeleteRunRequest(run_id=run_id))
        assert (
            type(await refused(served.runs.GetRun(pb.GetRunRequest(run_id=run_id)))) is RunNotFound
        )
        assert query(served.path, "SELECT DISTINCT run FROM frames") == query(
            served.path, "SELECT id FROM runs WHERE run_id = ?", kept
        )
        listed = (await served.runs.ListRuns(pb.ListRunsRequest())).runs
        assert [run.run_id for run in listed] == [kept]


async def test_a_run_that_has_not_ended_cannot_be_deleted(tmp_path: Path) -> None:
    async with serving(tmp_path, FOREVER) as served:
        run_id = await served.start(FOREVER)
        answer = served.runs.DeleteRun(pb.DeleteRunRequest(run_id=run_id))
        error = await refused(answer)
        assert await answer.code() is grpc.StatusCode.FAILED_PRECONDITION
        assert type(error) is RunNotFinished
        assert error.metadata == {"run_id": run_id}


async def test_agents_are_told_without_prompts_and_scripts(tmp_path: Path) -> None:
    @tool
    async def add(a: int, b: int = 2) -> int:
        """Add."""
        return a + b

    agent = scripted("fine", tools=(add,), description="Adds.", temperature=0.0)
    async with serving(tmp_path, agent) as served:
        request = agents_pb.GetAgentRequest(agent_id="demo")
        told = (await served.agents.GetAgent(request)).agent
        assert (told.description, told.provider, told.model) == ("Adds.", "scripted", "script")
        assert (told.temperature, told.HasField("max_output_tokens")) == (0.0, False)
        assert list(told.stop_conditions) == ["max_steps"]
        (shown,) = told.tools
        assert (shown.name, shown.description) == ("add", "Add.")
        assert '"a"' in shown.parameters_json
        unnamed = await refused(served.agents.GetAgent(agents_pb.GetAgentRequest()))
        assert isinstance(unnamed, InvalidRequest)


async def test_agents_are_listed_by_id_a_page_at_a_time(tmp_path: Path) -> None:
    agents = [scripted("fine", id=name) for name in ("c", "a", "b")]
    async with serving(tmp_path, *agents) as served:
        request = agents_pb.ListAgentsRequest(page_size=2)
        first = await served.agents.ListAgents(request)
        assert [agent.agent_id for agent in first.agents] == ["a", "b"]
        request.page_token = first.next_page_token
        second = await served.agents.ListAgents(request)
        assert [agent.agent_id for agent in second.agents] == ["c"]
        assert second.next_page_token == ""
        exact = await served.agents.ListAgents(agents_pb.ListAgentsRequest(page_size=3))
        assert (len(exact.agents), exact.next_page_token) == (3, "")


class Order(BaseModel):
    item: str


class Cart(WorkflowState):
    count: int = 0


@workflow(id="b", version="7", state_schema=Cart)
async def orders(ctx: WorkflowContext, order: Order) -> None:
    """Ship an order."""


@workflow(id="a")
async def plain(ctx: WorkflowContext) -> None: ...


async def test_workflows_are_listed_by_id_a_page_at_a_time(tmp_path: Path) -> None:
    async with serving(tmp_path, orders, plain, FINE) as served:
        request = agents_pb.ListWorkflowsRequest(page_size=1)
        first = await served.agents.ListWorkflows(request)
        request.page_token = first.next_page_token
        second = await served.agents.ListWorkflows(request)
        assert second.next_page_token == ""
        (one,), (other,) = first.workflows, second.workflows
        assert (one.workflow_id, one.code_version) == ("a", plain.version)
        assert not one.HasField("payload_schema_json")
        assert not one.HasField("state_schema_json")
        assert (other.workflow_id, other.code_version) == ("b", "7")
        assert other.description == "Ship an order."
        assert json.loads(other.payload_schema_json)["required"] == ["item"]
        assert "count" in json.loads(other.state_schema_json)["properties"]
        assert await served.client.list_workflows() == [one, other]


async def test_a_reader_of_a_run_that_is_deleted_is_told(tmp_path: Path) -> None:
    async with serving(tmp_path, FINE, FOREVER) as served:
        run_id = await served.start(FOREVER)
        await until(lambda: has_begun(served, run_id), "the run has begun")
        stream = served.raw(run_id)
        await served.runs.CancelRun(pb.CancelRunRequest(run_id=run_id))
        assert [response async for response in stream]
        await served.runs.DeleteRun(pb.DeleteRunRequest(run_id=run_id))
        assert type(await refused(served.raw(run_id, 1).read())) is RunNotFound


async def has_begun(served: Served, run_id: str) -> bool:
    """Return whether the run's log has an event."""
    return (await get(served, run_id)).latest_sequence > 0
