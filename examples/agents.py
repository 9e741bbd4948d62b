"""The agents of the examples; `polos serve examples/agents.py` serves them.

With OPENAI_API_KEY they run on OPENAI_MODEL. Without it, scripts play the models, so that every
example runs anywhere and says the same each time.
"""

from __future__ import annotations

import asyncio
import os

from polos import Agent, scripted, tool

KEY = os.environ.get("OPENAI_API_KEY")

WEATHER = {
    "Lima": {"celsius": 17, "sky": "foggy"},
    "Oslo": {"celsius": 4, "sky": "snowy"},
    "Tokyo": {"celsius": 21, "sky": "clear"},
}


def model(*turns: scripted.Turn | str) -> tuple[str, str]:
    """Return provider and model; `turns` are what a script says where there is no key."""
    if KEY:
        return "openai", os.environ.get("OPENAI_MODEL", "gpt-4o-mini")
    return "scripted", scripted.script(*turns)


def typed(text: str) -> scripted.Turn:
    """Return a turn that says `text` word by word, as fast as a model does."""
    words = scripted.say(text).chunks
    parts = [part for word in words for part in (scripted.pause(0.03), scripted.say([word]))]
    return scripted.turn(*parts)


@tool
async def get_weather(city: str) -> dict[str, object]:
    """Return the current weather in a city."""
    if city not in WEATHER:
        raise LookupError(f"There is no weather for {city!r}, only for {', '.join(WEATHER)}.")
    await asyncio.sleep(0.3)  # as long as a real source takes
    return {"city": city, **WEATHER[city]}


weather_agent = Agent(
    "weather",
    *model(
        scripted.turn("I will look. ", scripted.call("get_weather", city="Tokyo")),
        typed("It is 21 °C in Tokyo, and the sky is clear."),
    ),
    system_prompt="Answer in one sentence, from what the tool tells.",
    tools=[get_weather],
)

storyteller = Agent(
    "storyteller",
    *model(
        typed(
            "Every evening the keeper climbed ninety steps and lit the lamp. "
            "One night the oil ran out, so he sang until morning, "
            "and the ships came home by his voice."
        )
    ),
    system_prompt="Tell a story of three sentences.",
)

risky_agent = Agent(
    "risky",
    "openai" if KEY else "scripted",
    "no-such-model"
    if KEY
    else scripted.script(
        scripted.turn(
            "Let me see",
            scripted.fail("model_not_found", "There is no model 'no-such-model'.", retryable=False),
        )
    ),
)
