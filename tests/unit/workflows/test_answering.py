"""A workflow that answers another one's wait, in a service."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path
from typing import Any

from polos import Polos, events
from polos_client.define.agent import Agent
from polos_client.define.context import WorkflowContext
from polos_client.define.scripted import call, script, turn
from polos_client.define.tool import tool
from polos_client.define.workflow import workflow
from polos_client.errors import StepExecutionError


@workflow(id="answering-asks")
async def asks(ctx: WorkflowContext) -> Any:
    return (await ctx.step.suspend("ask"))["data"]


@workflow(id="answering-answers")
async def answers(ctx: WorkflowContext, payload: dict[str, str]) -> Any:
    await ctx.step.resume("answer", "ask", payload["run"], "answering-asks", {"yes": True})
    try:
        await ctx.step.resume("again", "ask", payload["run"], "answering-asks", {"yes": False})
    except StepExecutionError as error:
        return str(error)
    return "accepted twice"


async def test_the_first_answer_of_a_workflow_counts(tmp_path: Path) -> None:
    async with Polos(store=f"sqlite:///{tmp_path}/runs.db") as polos:
        asking = await asks.invoke(polos)
        answering = await answers.invoke(polos, {"run": asking.id})
        first, second = await asyncio.gather(ended(polos, asking), ended(polos, answering))
    assert first == {"yes": True}
    # The store may have been away for a while, and the step have been tried again.
    assert re.fullmatch(r"Step 'again' failed( after \d attempts)?: .*", second)


@tool(approval="always")
async def pay() -> str:
    return "paid"


@workflow(id="answering-approves")
async def approves(ctx: WorkflowContext, payload: dict[str, str]) -> Any:
    try:
        await ctx.step.resume("approve", payload["key"], payload["run"], "", {"approved": True})
    except StepExecutionError as error:
        return str(error)
    return "approved"


async def test_a_workflow_cannot_approve_a_call() -> None:
    payer = Agent("answering-payer", "scripted", script(turn(call("pay")), "Done."), tools=[pay])
    async with Polos() as polos:
        stream = await payer.stream(polos, "Pay.")
        async for event in stream.events:
            if event.event_type.startswith("suspend_"):
                key = event.event_type.removeprefix("suspend_")
                said = await approves.run(polos, {"run": stream.id, "key": key})
                assert "an approval is answered by its id" in said
                no = {"approved": False}
                await polos.resume(payer.id, stream.id, key, no, wait_id=event.sequence_id)
        (told,) = (await stream.result()).tool_results
    assert told.status == "failed"


async def ended(polos: Polos, handle: Any) -> Any:
    """Return what a run's workflow returned."""
    async for event in events.stream_workflow(polos, workflow_run_id=handle.id):
        last = event
    return last.data["result"]
