"""Runs that other runs start, and batches from outside, over real gRPC."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from polos import batch_agent_invoke, batch_invoke
from polos.v1 import run_service_pb2 as pb
from polos_client.calls import events
from polos_client.define.children import BatchWorkflowInput
from polos_client.define.context import WorkflowContext
from polos_client.define.tool import tool
from polos_client.define.workflow import workflow
from polos_client.errors import AgentNotFound, InvalidRequest, RunNotFinished
from tests.support.service import Served, scripted, serving, until

AGENT = scripted("Hello.", id="agent")


@workflow(id="echo")
async def echo(ctx: WorkflowContext, payload: dict[str, Any]) -> Any:
    return [payload, ctx.session_id, ctx.user_id]


@workflow(id="starts")
async def starts(ctx: WorkflowContext) -> list[str]:
    """Start a run of its own, and let a child start another one."""
    own = await ctx.step.invoke("own", echo, {"n": 1})
    return [own.id, await ctx.step.invoke_and_wait("child", below)]


@workflow(id="below")
async def below(ctx: WorkflowContext) -> str:
    return str((await ctx.step.invoke("other", "echo", {"n": 2})).id)


async def listed(served: Served, **query: Any) -> list[str]:
    return [run.run_id async for run in served.client.list_runs(**query)]


async def test_a_run_is_found_by_the_run_that_started_it(tmp_path: Path) -> None:
    async with serving(tmp_path, echo, starts, below) as served:
        handle = await starts.invoke(served.client, session_id="s", user_id="u")
        log = [one async for one in events.stream_workflow(served.client, "starts", handle.id)]
        first, second = log[-1].data["result"]
        told = [one.data.get("started_run_id") for one in log if one.event_type == "step_finish"]
        assert [one for one in told if one] == [first, second]
        child = next(one.proto.run_id for one in log if one.proto.workflow_id == "below")
        assert await listed(served, parent_id=handle.id) == [second, first]
        assert await listed(served, parent_id=child) == [second]
        assert await listed(served, parent_id=first) == []
        record = await served.client.get_execution(second)
        assert (record["parent_execution_id"], record["step_key"]) == (child, "other")
        assert record["root_execution_id"] == second
        ended = [one async for one in events.stream_workflow(served.client, "echo", second)]
        assert ended[-1].data["result"] == [{"n": 2}, "s", "u"]
        await served.client.delete_run(handle.id)
        assert await listed(served, parent_id=handle.id) == [second, first]
        assert (await served.client.get_run(first)).parent_run_id == handle.id


@workflow(id="patient")
async def patient(ctx: WorkflowContext) -> Any:
    """Start a run of its own, and ask for its result once somebody has answered."""
    own = await ctx.step.invoke("own", echo, {"n": 1})
    await ctx.step.suspend("go")
    return await ctx.step.wait_for_run("end", own)


async def test_a_run_is_not_deleted_while_the_run_that_started_it_is_open(tmp_path: Path) -> None:
    async with serving(tmp_path, echo, patient) as served:
        handle = await patient.invoke(served.client)
        await until(lambda: suspended(served, handle.id), "the run waits")
        (own,) = await listed(served, parent_id=handle.id)
        await served.events(own)
        told = f"Run {own} was started by run {handle.id}, which has not ended and may still ask"
        with pytest.raises(RunNotFinished, match=told) as raised:
            await served.client.delete_run(own)
        assert raised.value.metadata == {"run_id": handle.id}
        await served.client.resume("patient", handle.id, "go", {})
        ended = (await served.events(handle.id))[-1]
        assert ended.workflow_finish.result_json == '[{"n":1},null,null]'
        await served.client.delete_run(own)
        assert await listed(served, parent_id=handle.id) == []


async def suspended(served: Served, run_id: str) -> bool:
    return bool((await served.client.get_run(run_id)).open_waits)


async def test_a_callers_request_id_is_never_that_of_a_step(tmp_path: Path) -> None:
    async with serving(tmp_path, echo, starts, below) as served:
        handle = await starts.invoke(served.client)
        own = (await served.events(handle.id))[-1].workflow_finish.result_json
        for request_id in (f"{handle.id} own", f"{handle.id}/own", "own"):
            request = pb.CreateRunRequest(agent_id="echo", payload_json="{}", request_id=request_id)
            assert (await served.runs.CreateRun(request)).run.run_id not in own


async def test_batches_start_from_outside(tmp_path: Path) -> None:
    async with serving(tmp_path, echo, AGENT) as served:
        entries = [
            BatchWorkflowInput(id="echo", payload={"n": 1}),
            BatchWorkflowInput(id="agent", payload={"input": "Hi", "streaming": True}),
            BatchWorkflowInput(id="echo", payload={"n": 2}),
        ]
        with pytest.warns(UserWarning, match="sessions have no memory"):
            handles = await batch_invoke(served.client, entries, "s", "u")
        assert [one.workflow_id for one in handles] == ["echo", "agent", "echo"]
        assert {(one.session_id, one.user_id) for one in handles} == {("s", "u")}
        for handle, number in ((handles[0], 1), (handles[2], 2)):
            await served.events(handle.id)
            assert (await handle.get(served.client))["result"] == [{"n": number}, "s", "u"]
        configs = [AGENT.with_input("Hi", user_id="ann"), AGENT.with_input("Ho")]
        agents = await batch_agent_invoke(served.client, configs)
        assert [one.user_id for one in agents] == ["ann", None]
        for handle in agents:
            await served.events(handle.id)
            assert (await handle.get(served.client))["result"].result == "Hello."
        assert await served.client.batch_invoke([]) == []


async def test_a_batch_that_is_refused_says_why(tmp_path: Path) -> None:
    async with serving(tmp_path, echo) as served:
        first = BatchWorkflowInput(id="echo", payload={"n": 1})
        with pytest.raises(AgentNotFound, match="'nobody'"):
            await served.client.batch_invoke([first, BatchWorkflowInput(id="nobody", payload={})])
        assert len(await listed(served)) == 1
        wrong: Any = [first, {"id": "echo"}]
        with pytest.raises(InvalidRequest, match=r"workflows\[1\] must be a BatchWorkflowInput"):
            await served.client.batch_invoke(wrong)
        with pytest.raises(InvalidRequest, match=r"configs\[0\] must be an AgentRunConfig"):
            await batch_agent_invoke(served.client, wrong)
        assert len(await listed(served)) == 1


async def test_starts_inside_a_run_name_the_step_to_use(tmp_path: Path) -> None:
    told: list[str] = []

    async def refused(served: Served) -> None:
        client = served.client
        for start in (
            lambda: echo.run(client, {}),
            lambda: echo.invoke(client, {}),
            lambda: AGENT.run(client, "Hi"),
            lambda: AGENT.stream(client, "Hi"),
            lambda: AGENT.invoke(client, {"input": "Hi"}),
            lambda: batch_invoke(client, []),
            lambda: batch_agent_invoke(client, []),
        ):
            with pytest.raises(RuntimeError, match="cannot be called inside a run") as error:
                await start()
            told.append(str(error.value).split("Use ")[1])

    @tool(id="try")
    async def attempt(ctx: WorkflowContext) -> str:
        """Try to start runs."""
        await refused(served)
        return "tried"

    @workflow(id="tries")
    async def tries(ctx: WorkflowContext) -> str:
        await refused(served)
        return str(await ctx.step.run("step", lambda: attempt.fn(ctx)))

    async with serving(tmp_path, echo, tries) as served:
        log = await served.events((await tries.invoke(served.client)).id)
    assert log[-1].workflow_finish.result_json == '"tried"', log[-1]
    expected = ["invoke_and_wait", "invoke", *["agent_invoke_and_wait"] * 2, "agent_invoke"]
    expected += ["batch_invoke", "batch_agent_invoke"]
    assert told == [f"ctx.step.{name}." for name in expected] * 2


async def test_a_run_starts_only_what_its_project_may(tmp_path: Path) -> None:
    limited = {"echo": ["another"]}
    async with serving(tmp_path, echo, starts, below, agent_projects=limited) as served:
        log = await served.events((await starts.invoke(served.client)).id)
    assert log[-1].HasField("error")
    assert "There is no agent or workflow 'echo'" in log[-1].error.message
    assert "echo" not in log[-1].error.message.split("Loaded:")[1]
