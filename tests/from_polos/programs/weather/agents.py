"""Agents, as programs for the original SDK define them."""

from tools import get_weather

from polos import Agent, MaxStepsConfig, max_steps

weather_agent = Agent(
    id="weather-agent",
    provider="openai",
    model="gpt-4o-mini",
    system_prompt="You tell people what the weather is like. Look it up before you answer.",
    tools=[get_weather],
    stop_conditions=[max_steps(MaxStepsConfig(count=10))],
)

restless_agent = Agent(
    id="restless-agent",
    provider="openai",
    model="gpt-4o-mini",
    tools=[get_weather],
)
