"""An assistant that asks and pays, and a desk that leaves the paying to it."""

from polos import (
    Agent,
    MaxStepsConfig,
    WorkflowContext,
    create_ask_user_tool,
    max_steps,
    tool,
)


@tool(id="pay", description="Pay an amount in euros", approval="always")
async def pay(ctx: WorkflowContext, euros: int) -> dict:
    return {"paid": euros}


assistant = Agent(
    id="assistant",
    provider="openai",
    model="gpt-4o-mini",
    tools=[pay, create_ask_user_tool()],
    stop_conditions=[max_steps(MaxStepsConfig(count=30))],
)


@tool(description="Let the assistant do something")
async def delegate(ctx: WorkflowContext, task: str) -> str:
    done = await ctx.step.agent_invoke_and_wait("assist", assistant.with_input(task))
    return done.result


desk = Agent(id="desk", provider="openai", model="gpt-4o-mini", tools=[delegate])
