"""The app that the service under test serves.

Each tool writes a line for each execution before it goes on: `key attempt execution`. What is
written with O_APPEND in one call survives the death of the process.
"""

from __future__ import annotations

import asyncio
import os
import time
import uuid
from pathlib import Path

from chaos import launch
from chaos.places import Place
from polos import Agent, MaxStepsConfig, WorkflowContext, max_steps, tool

PAUSE = 0.01
"""Seconds that a tool takes after its effect."""


def effect(ctx: WorkflowContext) -> str:
    """Write down an execution, and return what names it."""
    execution = uuid.uuid4().hex
    line = f"{ctx.idempotency_key} {ctx.attempt} {execution}\n"
    file = os.open(Path(os.environ["CHAOS_LEDGER"]), os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        os.write(file, line.encode())
    finally:
        os.close(file)
    launch.faults.at(Place.MID_TOOL)
    return execution


@tool(description="Have an effect")
async def jot(ctx: WorkflowContext) -> str:
    """Have an effect, in the loop."""
    execution = effect(ctx)
    await asyncio.sleep(PAUSE)
    return execution


@tool(description="Have an effect")
def block(ctx: WorkflowContext) -> str:
    """Have an effect, in a thread."""
    execution = effect(ctx)
    time.sleep(PAUSE)
    return execution


@tool(description="Have an effect", at_most_once=True)
async def once(ctx: WorkflowContext) -> str:
    """Have an effect that must not happen twice."""
    execution = effect(ctx)
    await asyncio.sleep(PAUSE)
    return execution


@tool(id="break", description="Have an effect, and break")
async def break_(ctx: WorkflowContext) -> str:
    """Have an effect, then raise an exception that the traceback module cannot format."""
    effect(ctx)
    error = SyntaxError("broken")
    error.text = 5  # type: ignore[assignment]  # that is what breaks it
    raise error


agent = Agent(
    id="chaos",
    provider="openai",
    model="mock",
    tools=[jot, block, once, break_],
    stop_conditions=[max_steps(MaxStepsConfig(count=100))],
)
