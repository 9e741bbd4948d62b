"""See what a program is told when something goes wrong: in a run, and in a call."""

from __future__ import annotations

import asyncio

from examples.agents import risky_agent
from polos import Agent, AgentNotFound, PolosClient, RunFailed


async def by_event(client: PolosClient) -> None:
    """A failed run is an event; the stream itself raises nothing."""
    stream = await risky_agent.stream(client, "Do something risky")
    async for event in stream.events:
        if event.event_type == "error":
            print(f"\nError: {event.data['error']} ({event.data['reason']})")
        elif event.event_type == "text_delta":
            print(event.data["content"], end="", flush=True)


async def by_exception(client: PolosClient) -> None:
    """Text and result raise, so that half an answer is never taken for a whole one."""
    stream = await risky_agent.stream(client, "Do something risky")
    try:
        await stream.result()
    except RunFailed as error:
        again = "may help" if error.retryable else "will not help"
        print(f"The run failed: {error} Another try {again}. It had said {error.text!r}.")


async def refused(client: PolosClient) -> None:
    """A call that is refused starts no run, and raises at once."""
    stranger = Agent("stranger", "openai", "gpt-4o-mini")
    try:
        await stranger.stream(client, "Hello?")
    except AgentNotFound as error:
        print(f"Refused: {error}")


async def main() -> None:
    """Fail in each way."""
    client = PolosClient()
    await by_event(client)
    await by_exception(client)
    await refused(client)


if __name__ == "__main__":
    asyncio.run(main())
