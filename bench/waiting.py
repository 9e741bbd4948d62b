"""Workflows that wait, for `bench.rows.parked`."""

from __future__ import annotations

from polos import WorkflowContext
from polos_client.define.workflow import workflow


@workflow(id="waits")
async def waits(ctx: WorkflowContext) -> str:
    """Wait for a year, or until somebody has written an earlier time into the log."""
    await ctx.step.wait_for("nap", days=365)
    return await ctx.step.uuid("after")


@workflow(id="works")
async def works(ctx: WorkflowContext) -> str:
    """Do what `waits` does after its wait."""
    return await ctx.step.uuid("after")
