"""Workflows that wait, and one that does not, for `bench.rows.parked`."""

from __future__ import annotations

from datetime import datetime

from polos import WorkflowContext
from polos_client.define.workflow import workflow

YEAR = 365 * 24 * 3600.0
"""Seconds for which a question stays open."""


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
