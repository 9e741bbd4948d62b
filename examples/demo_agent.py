"""The agents of `make demo`; `polos serve examples/demo_agent.py` serves them."""

from __future__ import annotations

import os

from pydantic import BaseModel, Field

from polos import Agent, WorkflowContext, tool


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
    provider="openai",  # any server of this API: OPENAI_BASE_URL says where it is
    model="smollm2",
    system_prompt="You tell short stories for children, in a few simple sentences.",
    temperature=0.7,
    max_output_tokens=160,
)

weather_agent = Agent(
    id="weather-agent",
    provider="openai",
    model=os.environ.get("OPENAI_MODEL", "gpt-4o-mini"),
    system_prompt="You answer questions about the weather, from the tool's answers only.",
    tools=[get_weather],
)
