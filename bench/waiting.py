"""Workflows for `bench.rows.parked` and `bench.rows.steps`."""

from __future__ import annotations

import time
from datetime import datetime

from polos import WorkflowContext
from polos_client.define.workflow import workflow

YEAR = 365 * 24 * 3600.0
"""Seconds for which a question stays open."""


STEPS = 10_000
"""Steps of a long workflow."""

PART = 1_000
"""Steps at its beginning, and at its end, whose CPU time is told."""


@workflow(id="asks")
async def asks(ctx: WorkflowContext) -> str:
    """Wait for an answer, for a year at most."""
    await ctx.step.suspend("ask", {"question": "Shall the order be sent?"}, timeout=YEAR)
    return await ctx.step.uuid("after")


@workflow(id="naps")
async def naps(ctx: WorkflowContext, until: str) -> str:
    """Wait until a time, in ISO 8601."""
    await ctx.step.wait_until("nap", datetime.fromisoformat(until))
    return await ctx.step.uuid("after")


@workflow(id="works")
async def works(ctx: WorkflowContext) -> str:
    """Do what `naps` does after its wait."""
    return await ctx.step.uuid("after")


@workflow(id="many")
async def many(ctx: WorkflowContext) -> None:
    """Take many steps, and wait for an answer; what waits tells the CPU of a step, in ms."""
    marks = []
    for number in range(STEPS):
        if number in {0, PART, STEPS - PART}:
            marks.append(time.process_time())
        await ctx.step.run(f"step {number}", lambda: None)
    marks.append(time.process_time())
    first, last = marks[1] - marks[0], marks[3] - marks[2]
    told = {"first": 1000 * first / PART, "last": 1000 * last / PART}
    await ctx.step.suspend("end", told, timeout=YEAR)
