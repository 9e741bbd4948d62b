"""Defining agents, tools and stop conditions, as users write it."""

from __future__ import annotations

from typing import Any, assert_type

from pydantic import BaseModel

from polos import (
    Agent,
    ExecutedToolConfig,
    HasTextConfig,
    MaxStepsConfig,
    MaxTokensConfig,
    StopConditionContext,
    Tool,
    WorkflowContext,
    executed_tool,
    has_text,
    max_steps,
    max_tokens,
    scripted,
    stop_condition,
    tool,
)


class Place(BaseModel):
    city: str


@tool
async def get_weather(city: str) -> dict[str, int]:
    """Get the weather."""
    return {city: 21}


@tool(id="weather_at", description="Get the weather of a place")
async def weather_at(ctx: WorkflowContext, input: Place) -> str:
    assert_type(ctx.session_id, str | None)
    assert_type(ctx.initial_state, dict[str, Any])
    return input.city


@tool
def add(a: int, b: int = 0) -> int:
    """Add."""
    return a + b


# A tool is its function still, with its parameters and its result.
assert_type(add(1, b=2), int)
add("one")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
assert_type(add.id, str)
assert_type(add.parameters, dict[str, Any])


async def uses_a_tool(ctx: WorkflowContext) -> None:
    assert_type(await get_weather("Tokyo"), dict[str, int])
    await get_weather(town="Tokyo")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    assert_type(await weather_at(ctx, Place(city="Tokyo")), str)


@stop_condition
def enough(ctx: StopConditionContext) -> bool:
    return len(ctx.steps) > 3 and ctx.steps[-1].tool_results == []


@stop_condition
async def all_of(ctx: StopConditionContext, config: HasTextConfig) -> bool:
    return any(step.content in config.texts for step in ctx.steps)


async def plain(ctx: StopConditionContext) -> bool:
    return not ctx.steps


tools: list[Tool] = [get_weather, weather_at, add]

agent = Agent(
    id="weather",
    provider="openai",
    model="gpt-4o-mini",
    description="Tells the weather",
    system_prompt="You answer in one sentence.",
    tools=tools,
    temperature=0.5,
    max_output_tokens=100,
    stop_conditions=[
        max_steps(MaxStepsConfig(count=10)),
        max_tokens(MaxTokensConfig(limit=1000)),
        executed_tool(ExecutedToolConfig(tool_names=["add"])),
        has_text(texts=["sunny"]),
        enough,
        enough(),
        max_steps({"count": 3}),
        all_of(HasTextConfig(texts=["sunny"])),
        lambda ctx: len(ctx.steps) > 5,
        plain,
    ],
)
assert_type(agent.id, str)
assert_type(agent.temperature, float | None)

max_steps(MaxTokensConfig(limit=1))  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
Agent("a", "openai", "m", stop_conditions=[max_steps])  # type: ignore[list-item]  # pyright: ignore[reportArgumentType]
caller = Agent("caller", "openai", "m", tools=[add, agent, agent.as_tool(id="other")])
caller.tools = [agent]
assert_type(caller.tools, tuple[Tool, ...])
Agent("a", "openai", "m", tools=[len])  # type: ignore[list-item]  # pyright: ignore[reportArgumentType]

played = Agent(
    "played",
    "scripted",
    scripted.script(scripted.turn("Let me add.", scripted.call("add", a=1)), "It is 1."),
    tools=(add,),
)
