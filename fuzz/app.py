"""What the fuzzed service serves; its tool writes each call's idempotency key into NOTES."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from polos import Agent, WorkflowContext, scripted, tool
from polos_client.define.workflow import workflow


@tool(description="Note that it was called")
def note(ctx: WorkflowContext) -> str:
    """Write the call's key down."""
    with Path(os.environ["NOTES"]).open("a") as notes:
        notes.write(f"{ctx.idempotency_key}\n")
    return "noted"


noting = Agent(
    id="noting",
    provider="scripted",
    model=scripted.script(scripted.turn("Noting.", scripted.call("note")), "Noted."),
    tools=[note],
)
talking = Agent(id="talking", provider="scripted", model=scripted.script(" ".join("word" * 50)))
waiting = Agent(
    id="waiting",
    provider="scripted",
    model=scripted.script(scripted.turn("So far", scripted.pause())),
)


@workflow(id="asking")
async def asking(ctx: WorkflowContext, payload: dict[str, Any]) -> Any:
    """Wait for an answer to the payload."""
    return (await ctx.step.suspend("ok", payload, timeout=3600))["data"]
