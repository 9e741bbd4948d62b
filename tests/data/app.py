"""The app whose runs the stores in this folder hold: one agent for each kind of run.

Each release writes its stores with these agents. The tests of later versions load agents with
the same ids and tools but other scripts: a run keeps the script that it was started with.
"""

from __future__ import annotations

import asyncio
import os
import signal
from typing import Any

from pydantic import BaseModel

from polos import Agent, StopConditionContext, WorkflowContext, scripted, stop_condition, tool

HOLDING = "holding"
"""The line that the tool `hold` prints once it is ready to be cancelled."""


@tool
async def jot(text: str) -> str:
    """Write something down."""
    return f"{text} is noted"


@tool
async def recall(ctx: WorkflowContext) -> dict[str, Any]:
    """Tell what the run was started with."""
    return {"session": ctx.session_id, "user": ctx.user_id, "state": ctx.initial_state}


@tool
async def hold() -> str:
    """Wait until the run is cancelled, then kill the process before the end is written."""
    print(HOLDING, flush=True)  # noqa: T201 - whoever cancels waits for it
    try:
        await asyncio.Event().wait()
    except asyncio.CancelledError:
        os.kill(os.getpid(), signal.SIGKILL)
    return ""


class Told(BaseModel):
    """Configures `told_enough`.

    Attributes:
        times: number of tool calls that is enough.

    """

    times: int


@stop_condition
def told_enough(ctx: StopConditionContext, config: Told) -> bool:
    """Hold after `times` tool calls."""
    return sum(len(step.tool_results) for step in ctx.steps) >= config.times


finished = Agent(
    "finished",
    "scripted",
    scripted.script(scripted.turn("Noting. ", scripted.call("jot", text="Milk")), "Done."),
    tools=[jot],
)
failed = Agent(
    "failed",
    "scripted",
    scripted.script(
        scripted.turn("I try. ", scripted.fail("model_not_found", "There is no such model.", False))  # noqa: FBT003
    ),
)
cancelled = Agent("cancelled", "scripted", scripted.script(scripted.turn("On", scripted.pause())))
running = Agent(
    "running",
    "scripted",
    scripted.script(
        scripted.turn("Noting. ", scripted.call("jot", text="Milk")),
        scripted.turn("Half of", scripted.pause(), retried=["Milk is noted."]),
    ),
    tools=[jot],
)
configured = Agent(
    "configured",
    "scripted",
    scripted.script(
        scripted.turn("Looking. ", scripted.call("recall")),
        scripted.turn("Half", scripted.pause(), retried=["Again.", scripted.call("recall")]),
        "Beyond the stop condition.",
    ),
    system_prompt="You are precise.",
    tools=[recall],
    temperature=0.5,
    max_output_tokens=100,
    stop_conditions=[told_enough(times=2)],
)
cancelling = Agent(
    "cancelling", "scripted", scripted.script(scripted.turn(scripted.call("hold"))), tools=[hold]
)
queued = Agent(
    "queued",
    "scripted",
    scripted.script(scripted.turn(scripted.call("jot", text="Bread")), "Bread is noted."),
    tools=[jot],
)
