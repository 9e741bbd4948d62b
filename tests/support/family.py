"""A workflow with two children that work at the same time, each with an agent of its own."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from polos.v1.event_pb2 import Event
from polos.v1.run_service_pb2 import CreateRunRequest
from polos_client.define.agent import Agent
from polos_client.define.context import WorkflowContext
from polos_client.define.workflow import workflow
from polos_client.errors import StepExecutionError
from tests.support.service import Served, scripted

ENDS = {"agent_finish", "workflow_finish", "error", "run_cancelled"}


def writer() -> Agent:
    """Return the agent that both children ask."""
    return scripted("One two three.", id="writer")


@workflow(id="asks")
async def asks(ctx: WorkflowContext, payload: dict[str, Any]) -> Any:
    """Ask an agent, then a person."""
    said = await ctx.step.agent_invoke_and_wait("inner", writer().with_input("Go.", streaming=True))
    answer = await ctx.step.suspend("ok", payload)
    return {"said": said.result, "answer": answer["data"]}


@workflow(id="top")
async def top(ctx: WorkflowContext) -> list[Any]:
    """Run two children at once; the error of one stands in the place of its result."""

    async def one(number: int) -> Any:
        try:
            return await ctx.step.invoke_and_wait(f"c{number}", asks, {"n": number})
        except StepExecutionError as error:
            return str(error)

    return list(await asyncio.gather(one(0), one(1)))


DEFINITIONS: tuple[Any, ...] = (top, asks, writer())


async def started(served: Served) -> tuple[str, list[str]]:
    """Start a run; return its id, and those of its children once both ask."""
    run_id = (await served.runs.CreateRun(CreateRunRequest(agent_id="top"))).run.run_id
    return run_id, await asking(served, run_id)


async def asking(served: Served, run_id: str) -> list[str]:
    """Wait until both children ask; return their ids, in the order of their numbers."""
    found: dict[int, str] = {}
    async for event in served.follow(run_id):  # the list of waits is ahead of the log
        if event.HasField("suspended"):
            found[json.loads(event.suspended.data_json)["n"]] = event.run_id
            if len(found) == 2:
                break
    return [found[0], found[1]]


async def ended(served: Served) -> tuple[str, list[str], list[Event]]:
    """Run it to its end; return its id, those of its children, and the log."""
    run_id, children = await started(served)
    for child in children:
        await served.client.resume("asks", child, "ok", "yes")
    return run_id, children, await served.events(run_id)


def below(log: list[Event], run_id: str) -> list[Event]:
    """Return what the stream of a run has, out of the log of its root."""
    runs = {run_id}
    found = []
    for event in log:
        if event.run_id in runs or event.parent_run_id in runs:
            runs.add(event.run_id)
            found.append(Event.FromString(event.SerializeToString()))
    found[-1].terminal = True
    return found
