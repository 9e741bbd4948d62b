"""What `bench.rows.children` starts: a workflow that runs agents beside each other."""

from __future__ import annotations

from bench.app import relay
from bench.prompt import Prompt
from polos import WorkflowContext
from polos_client.define.workflow import workflow

TOKENS = 20
"""Tokens of a child's answer."""


@workflow(id="spreads")
async def spreads(ctx: WorkflowContext, payload: dict[str, int]) -> int:
    """Run `count` agents beside each other whose model says `rate` tokens a second; 0: at once."""
    prompt = str(Prompt(TOKENS, payload["rate"]))
    agents = [relay.with_input(prompt, streaming=True) for _ in range(payload["count"])]
    done = await ctx.step.batch_agent_invoke_and_wait("agents", agents)
    return sum(one.success for one in done)
