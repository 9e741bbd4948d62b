"""A workflow that answers another one's wait, in a service."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path
from typing import Any

from polos import Polos, events
from polos_client.define.context import WorkflowContext
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


async def ended(polos: Polos, handle: Any) -> Any:
    """Return what a run's workflow returned."""
    async for event in events.stream_workflow(polos, workflow_run_id=handle.id):
        last = event
    return last.data["result"]
