"""A root log with children, over real gRPC: what readers get of it, live, resumed and later."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from polos.v1.event_pb2 import AgentFinish, AgentStart, TextDelta, ToolCall, Usage
from polos.v1.run_service_pb2 import GetRunRequest, StreamWorkflowRequest
from polos_client.calls import events
from polos_client.calls.follow import fold
from polos_client.calls.handle import ExecutionHandle
from polos_client.calls.stream import AgentStream, TextChunk
from polos_service.runs.attempt import Attempt, StepOutput
from polos_service.runs.context import RunContext
from tests.support.runs import executing, runnable
from tests.support.service import Served, serving
from tests.support.stores import new_run, soon


@pytest.fixture
async def served(tmp_path: Path) -> AsyncIterator[Served]:
    async with serving(tmp_path) as one:
        yield one


class Family:
    """A run whose step begins a child, with the same step keys in both.

    Attributes:
        calls: whose tool ran, in order.
        waiting: set when the child's second tool waits for `go_on`.

    """

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.waiting = asyncio.Event()
        self.go_on = asyncio.Event()

    async def __call__(self, ctx: RunContext) -> None:
        await self.turn(ctx, "root")

        async def body(attempt: Attempt) -> StepOutput:
            child = await ctx.children.begin(attempt, "sub", AgentStart(agent_id="sub"))
            await self.turn(child, "child")

            async def wait(_attempt: Attempt) -> StepOutput:
                self.calls.append("wait")
                self.waiting.set()
                await self.go_on.wait()
                return StepOutput(result_json="1")

            await child.step("wait", "tool", wait)
            await child.finish(AgentFinish(result="child said", total_steps=1))
            return StepOutput(result_json='"child said"')

        await ctx.step("ask", "agent", body, resumes=True)

    async def turn(self, ctx: RunContext, name: str) -> None:
        """Say something, and call a tool."""

        async def say(attempt: Attempt) -> StepOutput:
            for content in (name, " said"):
                await attempt.emit(
                    TextDelta(content=content, step_key=attempt.key, step=1, attempt=attempt.number)
                )
            result = f'{{"content": "{name} said", "tool_calls": []}}'
            usage = Usage(input_tokens=1, output_tokens=2, total_tokens=3)
            return StepOutput(result_json=result, usage=usage)

        async def use(_attempt: Attempt) -> StepOutput:
            self.calls.append(name)
            return StepOutput(result_json=f'"{name}"')

        call = ToolCall(id=f"call-{name}", name="look", arguments_json=f'{{"who": "{name}"}}')
        await ctx.step("llm:1", "llm", say)
        await ctx.step("look", "tool", use, call=call)


async def create(served: Served) -> str:
    """Put a run into the queue that only an executor of the test takes up."""
    return await served.store.create(new_run())


async def ended(served: Served) -> str:
    """Run a family to its end."""
    family = Family()
    family.go_on.set()
    async with executing(served.store, runnable(family)):
        run_id = await create(served)
        await soon(served.events(run_id))
    return run_id


async def test_a_stream_ends_at_the_root_s_end_and_not_at_a_child_s(served: Served) -> None:
    run_id = await ended(served)
    log = await served.events(run_id)
    assert [one.sequence for one in log] == list(range(1, len(log) + 1))
    ends = [one for one in log if one.HasField("agent_finish") or one.terminal]
    assert [one.terminal for one in ends] == [False, True]
    start = next(one for one in log if one.HasField("agent_start"))
    assert {one.run_id for one in log} == {run_id, f"{run_id}:{start.sequence}"}
    read = [one async for one in events.stream_workflow(served.client, workflow_run_id=run_id)]
    assert [one.proto for one in read] == log
    assert {one.topic for one in read} == {f"workflow/agent/{run_id}"}
    told = {one.data["_metadata"]["workflow_id"] for one in read}
    assert told == {"agent", "sub"}


async def test_a_cursor_inside_a_child_reads_on_from_there(served: Served) -> None:
    run_id = await ended(served)
    log = await served.events(run_id)
    inside = next(one.sequence for one in log if one.HasField("parent_run_id")) + 2
    read = [
        one
        async for one in events.stream_workflow(
            served.client, "agent", workflow_run_id=run_id, last_sequence_id=inside
        )
    ]
    assert [one.proto for one in read] == log[inside:]
    assert {one.topic for one in read} == {f"workflow/agent/{run_id}"}


async def test_text_tools_and_tokens_are_the_root_s_own(served: Served) -> None:
    run_id = await ended(served)
    folded = await fold(served.client, run_id)
    assert folded.text == "root said"
    assert folded.usage.total_tokens == 3
    assert [(one.tool_name, one.input, one.result) for one in folded.tool_results] == [
        ("look", {"who": "root"}, "root")
    ]
    assert [str(one) for one in await chunks(served, run_id)] == ["root", " said"]


async def chunks(served: Served, run_id: str) -> list[TextChunk]:
    opened: Any = served.runs.StreamWorkflow(StreamWorkflowRequest(workflow_run_id=run_id))
    stream = AgentStream(served.client, ExecutionHandle(id=run_id), opened)
    return [one async for one in stream.text_chunks]


async def test_get_run_tells_the_root_s_tools_and_outcome(served: Served) -> None:
    run_id = await ended(served)
    run = (await served.runs.GetRun(GetRunRequest(run_id=run_id))).run
    assert [(one.tool_call.id, one.result_json) for one in run.tool_results] == [
        ("call-root", '"root"')
    ]
    assert run.tool_results_omitted == 0
    assert run.outcome.run_id == run_id
    assert run.outcome.terminal


async def test_a_child_goes_on_under_the_next_claim_and_a_reader_misses_nothing(
    served: Served,
) -> None:
    family = Family()
    run_id = await create(served)
    reading = asyncio.ensure_future(served.events(run_id))
    async with executing(served.store, runnable(family)):
        await soon(family.waiting.wait())
    family.go_on.set()
    async with executing(served.store, runnable(family)):
        log = await soon(reading)
    assert family.calls == ["root", "child", "wait", "wait"], "a finished step never runs again"
    assert [one.sequence for one in log] == list(range(1, len(log) + 1))
    children = {one.run_id for one in log if one.HasField("parent_run_id")}
    assert len(children) == 1
    retries = [one for one in log if one.HasField("step_retry")]
    assert [(one.run_id, one.step_retry.step_key) for one in retries] == [(*children, "wait")]
    assert log[-1].terminal
