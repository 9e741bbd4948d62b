"""Watch the tools that a model asks for at once run at once; service and agent in this process."""

from __future__ import annotations

import asyncio
from datetime import datetime

from examples.agents import model
from polos import Agent, Polos, scripted, tool

SECONDS = 0.5


@tool
async def measure(city: str) -> int:
    """Measure the temperature in a city, in degrees Celsius; takes a while."""
    await asyncio.sleep(SECONDS)
    return sum(city.encode()) % 30


surveyor = Agent(
    "surveyor",
    *model(
        scripted.turn(*(scripted.call("measure", city=city) for city in ("Lima", "Oslo", "Rome"))),
        "All three are measured.",
    ),
    system_prompt="Measure all cities at once, then answer in one sentence.",
    tools=[measure],
)


async def main() -> None:
    """Ask about three cities, and compare the time with that of one measurement."""
    async with Polos() as polos:
        stream = await surveyor.stream(polos, "How warm is it in Lima, Oslo and Rome?")
        times: list[datetime] = []
        async for event in stream.events:
            if event.data.get("step_type") == "tool":
                times.append(event.created_at)
                print(event.event_type, event.data["step_key"])
        print(await stream.text())
    if times:
        took = (times[-1] - times[0]).total_seconds()
        print(f"All measurements, of {SECONDS:g} s each, took {took:.1f} s.")


if __name__ == "__main__":
    asyncio.run(main())
