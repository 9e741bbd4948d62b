"""A tool, as programs for the original SDK define it."""

from pydantic import BaseModel, Field

from polos import WorkflowContext, tool


class WeatherInput(BaseModel):
    city: str = Field(description="The city to look up")
    unit: str = Field(default="celsius", description="celsius or fahrenheit")


class WeatherOutput(BaseModel):
    city: str
    degrees: int
    unit: str


@tool(description="Look up the weather of a city as it is now")
async def get_weather(ctx: WorkflowContext, input: WeatherInput) -> WeatherOutput:
    degrees = {"celsius": 21, "fahrenheit": 70}[input.unit]
    return WeatherOutput(city=input.city, degrees=degrees, unit=input.unit)
