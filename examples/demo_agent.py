"""The agents of `make demo`; `polos serve examples/demo_agent.py` serves them."""

from __future__ import annotations

import os
import random

from pydantic import BaseModel, Field

from polos import Agent, WorkflowContext, tool, workflow

NAMES = ("Ada", "Bruno", "Nora")


class Place(BaseModel):
    """Where to look.

    Attributes:
        city: the city's name.

    """

    city: str = Field(description="Name of the city, for example Tokyo")


@tool(description="Return the current weather in a city")
async def get_weather(ctx: WorkflowContext, input: Place) -> dict[str, object]:  # noqa: ARG001 - the documented signature
    """Return made-up weather, the same for the same city."""
    degrees = sum(input.city.encode()) % 30
    return {"city": input.city, "celsius": degrees, "sky": "clear" if degrees % 2 else "cloudy"}


storyteller = Agent(
    id="storyteller",
    provider="openai",  # or any server with this API, at OPENAI_BASE_URL
    model="smollm2",
    system_prompt="You tell short stories for children, in a few simple sentences.",
    temperature=0,
    max_output_tokens=300,
    provider_kwargs={"stop": ["\n\n"]},  # a small model does not find an end by itself
)


@workflow
async def bedtime(ctx: WorkflowContext) -> str:
    """Tell a story about somebody who is chosen at random, once."""
    name = await ctx.step.run("choose a name", random.choice, NAMES)
    question = f"Tell me a short story about {name}, who keeps a lighthouse."
    story = await ctx.step.agent_invoke_and_wait(
        "tell", storyteller.with_input(question, streaming=True)
    )
    return str(story.result)


weather_agent = Agent(
    id="weather-agent",
    provider="openai",
    model=os.environ.get("OPENAI_MODEL", "gpt-4o-mini"),
    system_prompt="You answer questions about the weather, from the tool's answers only.",
    tools=[get_weather],
)
