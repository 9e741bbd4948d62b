"""One child of a run, read by its id: its events, its record, and who may see them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from polos.v1 import run_service_pb2 as pb
from polos.v1.event_pb2 import Event
from polos.v1.run_pb2 import RunState
from polos_client.calls import events
from polos_client.calls.follow import fold
from polos_client.calls.handle import ExecutionHandle
from polos_client.calls.stream import AgentStream
from polos_client.define.children import BatchWorkflowInput
from polos_client.define.context import WorkflowContext
from polos_client.define.workflow import workflow
from polos_client.errors import CursorAhead, InvalidRequest, RunNotFound
from polos_service.reading import tail
from polos_service.reading.tail import Readers
from polos_service.store.sqlite import spool
from tests.support.family import DEFINITIONS, below, ended, started, writer
from tests.support.service import Served, events_in, serving
from tests.support.stores import soon
from tests.support.tails import response


@pytest.fixture
async def served(tmp_path: Path) -> AsyncIterator[Served]:
    async with serving(tmp_path, *DEFINITIONS) as one:
        yield one


async def responses(served: Served, run_id: str, after: int = 0) -> list[Any]:
    """Return the responses of a stream, as stubs have them."""
    request = pb.StreamWorkflowRequest(workflow_run_id=run_id, after_sequence=after)
    return [one async for one in served.runs.StreamWorkflow(request)]


@pytest.mark.parametrize("limit", [200, tail.READ_LIMIT])
async def test_a_child_s_stream_has_its_events_and_those_below_it_from_any_cursor(
    served: Served, monkeypatch: pytest.MonkeyPatch, limit: int
) -> None:
    _, children, log = await ended(served)
    monkeypatch.setattr(tail, "READ_LIMIT", limit)
    for child in children:
        own = below(log, child)
        assert len({one.run_id for one in own}) == 2, "the child and the agent below it"
        assert [one.sequence for one in own] != list(
            range(own[0].sequence, own[0].sequence + len(own))
        )
        for after in range(0, len(log) + 1, 2):
            got = await responses(served, child, after)
            assert [event for one in got for event in one.events] == [
                one for one in own if one.sequence > after
            ]
            covered = [one.covered_through for one in got]
            assert covered == sorted(covered)
            assert all(one >= after for one in covered)


async def test_a_reader_with_plain_stubs_is_cut_and_resumes_in_a_gap(served: Served) -> None:
    _, children, log = await ended(served)
    for child in children:
        own = below(log, child)
        seen: list[Any] = []
        cursor, calls, over = 0, 0, False
        while not over:
            calls += 1
            call = served.runs.StreamWorkflow(
                pb.StreamWorkflowRequest(workflow_run_id=child, after_sequence=cursor)
            )
            async for answer in call:
                for event in answer.events[:2]:  # no more of it comes through
                    seen.append(event)
                    cursor, over = event.sequence, event.terminal
                break
            call.cancel()
        assert seen == own
        assert calls == (len(own) + 1) // 2


async def test_the_client_reads_a_child(served: Served) -> None:
    run_id, (child, _), log = await ended(served)
    own = below(log, child)
    read = [one async for one in events.stream_workflow(served.client, "asks", child)]
    assert [one.proto for one in read] == own
    assert [one.id for one in read] == [f"{run_id}:{one.sequence}" for one in own]
    assert {one.topic for one in read} == {f"workflow/asks/{child}"}
    assert [one.is_own for one in read] == [one.run_id == child for one in own]
    gap = read[0].sequence_id + 1
    rest = events.stream_workflow(served.client, "asks", child, last_sequence_id=gap)
    assert [one.proto async for one in rest] == [one for one in own if one.sequence > gap]
    inner = next(one.run_id for one in own if one.run_id != child)
    opened: Any = served.runs.StreamWorkflow(pb.StreamWorkflowRequest(workflow_run_id=inner))
    stream = AgentStream(served.client, ExecutionHandle(id=inner), opened)
    assert "".join([one async for one in stream.text_chunks]) == "One two three."
    assert await stream.text() == "One two three."
    assert (await stream.result()).agent_run_id == inner


async def test_a_child_has_a_record_of_its_own(served: Served) -> None:
    run_id, (child, _), log = await ended(served)
    own = below(log, child)
    run = (await served.runs.GetRun(pb.GetRunRequest(run_id=child))).run
    assert run.state == RunState.RUN_STATE_COMPLETED
    assert (run.run_id, run.workflow_id, run.root_workflow_id) == (child, "asks", "top")
    assert (run.parent_run_id, run.parent_step_key) == (run_id, "c0")
    assert run.outcome == own[-1]
    assert run.latest_sequence == own[-1].sequence
    assert run.create_time == own[0].create_time
    assert run.finish_time == own[-1].create_time
    record = await served.client.get_execution(child)
    assert record["result"] == {"said": "One two three.", "answer": "yes"}
    assert record["parent_execution_id"] == record["root_execution_id"] == run_id
    assert (record["status"], record["step_key"]) == ("completed", "c0")
    handle = ExecutionHandle.of(run)
    assert (handle.root_execution_id, handle.root_workflow_id) == (run_id, "top")
    assert (await handle.get(served.client))["result"] == record["result"]
    inner = next(one.run_id for one in own if one.run_id != child)
    told = await ExecutionHandle(id=inner).get(served.client)
    assert told["result"].result == "One two three."
    assert told["parent_execution_id"] == child


async def test_a_child_that_waits_tells_its_own_waits(served: Served) -> None:
    run_id, (child, other) = await started(served)
    for one in (child, other):
        run = (await served.runs.GetRun(pb.GetRunRequest(run_id=one))).run
        assert run.state == RunState.RUN_STATE_SUSPENDED
        assert [wait.run_id for wait in run.open_waits] == [one]
        assert not run.HasField("outcome")
    reading = asyncio.ensure_future(fold(served.client, child))
    await served.client.resume("asks", child, "ok", 7)
    assert (await soon(reading)).result().result["answer"] == 7
    assert (await ExecutionHandle(id=child).get(served.client))["status"] == "completed"
    assert (await served.client.get_execution(other))["status"] == "waiting"
    assert (await served.client.get_execution(run_id))["status"] == "waiting"


async def test_the_tree_of_a_run_tells_who_waits_for_what(served: Served) -> None:
    run_id, children = await started(served)
    answer = await served.runs.GetRun(pb.GetRunRequest(run_id=run_id, include_tree=True))
    nodes = {one.run_id: one for one in answer.tree.nodes}
    assert answer.tree.nodes[0].run_id == run_id
    assert sorted(one.kind for one in nodes.values()) == ["agent"] * 2 + ["workflow"] * 3
    assert nodes[run_id].state == answer.run.state == RunState.RUN_STATE_RUNNING
    assert {one.step_key for one in nodes[run_id].open_steps} == {"c0", "c1"}
    for number, child in enumerate(children):
        node = nodes[child]
        assert (node.parent_run_id, node.parent_step_key) == (run_id, f"c{number}")
        assert node.state == RunState.RUN_STATE_SUSPENDED
        assert [one.step_key for one in node.open_waits] == ["ok"]
        below_it = [one for one in nodes.values() if one.parent_run_id == child]
        assert [one.state for one in below_it] == [RunState.RUN_STATE_COMPLETED]
        assert node.usage == below_it[0].usage
    total = sum(nodes[child].usage.total_tokens for child in children)
    assert nodes[run_id].usage.total_tokens == total > 0
    part = await served.runs.GetRun(pb.GetRunRequest(run_id=children[1], include_tree=True))
    assert [one.run_id for one in part.tree.nodes] == [
        one.run_id for one in answer.tree.nodes if children[1] in (one.run_id, one.parent_run_id)
    ]
    assert not (await served.runs.GetRun(pb.GetRunRequest(run_id=run_id))).HasField("tree")


async def test_a_queued_run_is_a_tree_of_its_own(tmp_path: Path) -> None:
    async with serving(tmp_path, *DEFINITIONS, max_runs=1) as served:
        await started(served)
        create = pb.CreateRunRequest(agent_id="top")
        run_id = (await served.runs.CreateRun(create)).run.run_id
        request = pb.GetRunRequest(run_id=run_id, include_tree=True)
        (node,) = (await served.runs.GetRun(request)).tree.nodes
        assert (node.run_id, node.state) == (run_id, RunState.RUN_STATE_QUEUED)


@pytest.mark.parametrize("number", ["0", "00", "01", "1", "2", "99", "x", "", "-1", "9" * 40])
async def test_a_child_that_there_is_not_is_not_found(served: Served, number: str) -> None:
    run_id, _ = await started(served)
    other = f"{run_id}:{number}"
    client = served.client
    with pytest.raises(RunNotFound):
        _ = [one async for one in events.stream_workflow(client, workflow_run_id=other)]
    with pytest.raises(RunNotFound):
        await client.get_execution(other)
    with pytest.raises(RunNotFound):
        await client.cancel_execution(other)
    with pytest.raises(RunNotFound):
        await client.run_token(other)


async def test_a_child_is_deleted_with_its_root_only(served: Served) -> None:
    run_id, (child, _), _ = await ended(served)
    with pytest.raises(InvalidRequest, match="is deleted with its root run"):
        await served.client.delete_run(child)
    await served.client.delete_run(run_id)
    with pytest.raises(RunNotFound):
        await served.client.get_execution(child)


async def test_a_cursor_past_the_root_s_log_is_refused(served: Served) -> None:
    _, (child, _), log = await ended(served)
    with pytest.raises(CursorAhead):
        await anext(
            events.stream_workflow(served.client, "asks", child, last_sequence_id=len(log) + 1)
        )


async def test_a_child_s_reader_hears_how_far_a_busy_log_was_read(served: Served) -> None:
    run_id, (child, other) = await started(served)
    readers = Readers(served.store, heartbeat=0.05)
    with readers.tail("default", child, 0) as one:
        latest = (await served.store.get("default", run_id)).latest
        covered = 0
        while covered < latest:
            covered = pb.StreamRunResponse.FromString(await response(one)).covered_through
        await served.client.resume("asks", other, "ok", 1)  # its events are not of this child
        while covered < latest + 3:
            answer = await soon(response(one))
            assert not events_in(answer)
            covered = pb.StreamRunResponse.FromString(answer).covered_through


async def test_many_read_children_at_once(served: Served) -> None:
    _, children = await started(served)
    reading = [asyncio.ensure_future(served.events(child)) for child in children for _ in range(20)]
    await asyncio.sleep(0)
    for child in children:
        await served.client.resume("asks", child, "ok", "yes")
    read = await soon(asyncio.gather(*reading))
    assert all(one[-1].terminal and one == read[0] for one in read[:20])
    assert all(one[-1].terminal and one == read[20] for one in read[20:])


async def test_a_tree_is_cut(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    run_id, children, _ = await ended(served)
    monkeypatch.setattr("polos_service.reading.tree.NODES", 3)
    request = pb.GetRunRequest(run_id=run_id, include_tree=True)
    tree = (await served.runs.GetRun(request)).tree
    assert (len(tree.nodes), tree.omitted) == (3, 2)
    assert {one.run_id for one in tree.nodes} >= {run_id, children[0]}


async def test_a_child_is_read_on_after_a_restart(tmp_path: Path) -> None:
    async with serving(tmp_path, *DEFINITIONS) as served:
        run_id, (child, other) = await started(served)
        client = served.client
        stream = events.stream_workflow(client, workflow_run_id=child)
        seen = [(await anext(stream)).proto for _ in range(3)]
        await stream.aclose()
    async with serving(tmp_path, *DEFINITIONS) as served:
        for one in (child, other):
            await served.client.resume("asks", one, "ok", "yes")
        log = await served.events(run_id)
        cursor = seen[-1].sequence
        assert seen + await served.events(child, after=cursor) == below(log, child)


@workflow(id="many")
async def many(ctx: WorkflowContext) -> int:
    """Run children at once, each of which asks an agent."""
    entries = [BatchWorkflowInput(id="deep", payload={"n": number}) for number in range(12)]
    return len(await ctx.step.batch_invoke_and_wait("all", entries))


@workflow(id="deep")
async def deep(ctx: WorkflowContext, payload: dict[str, int]) -> str:
    """Ask an agent, then wait where the run is parked for, then ask it again."""
    for key in ("once", "again"):
        said = await ctx.step.agent_invoke_and_wait(key, writer().with_input("Go.", streaming=True))
        if key == "once":
            await ctx.step.suspend("ok", payload)
    return str(said.result)


async def test_each_of_many_children_has_all_of_its_events_wherever_they_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spool, "SPOOL_LIMIT", 3_000)
    monkeypatch.setattr(spool, "BRANCHED", 500)
    definitions = (many, deep, writer())
    children: set[str] = set()
    async with serving(tmp_path, *definitions) as served:
        start = pb.CreateRunRequest(agent_id="many")
        run_id = (await served.runs.CreateRun(start)).run.run_id
        async for event in served.follow(run_id):
            if event.HasField("suspended"):
                children.add(event.run_id)
            if len(children) == 12:
                break
    async with serving(tmp_path, *definitions) as served:  # it goes on from the log
        live = {child: asyncio.ensure_future(responses(served, child)) for child in children}
        for child in children:
            await served.client.resume("deep", child, "ok", "yes")
        log = await served.events(run_id)
        children.update(one.run_id for one in log if one.HasField("agent_start"))
        assert len(children) == 12 + 24
        for child in children:
            assert events_of(await responses(served, child)) == below(log, child)
        for child, reading in live.items():
            assert events_of(await soon(reading)) == below(log, child)


def events_of(answers: list[Any]) -> list[Event]:
    return [event for one in answers for event in one.events]
