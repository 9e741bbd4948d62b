"""Show an agent's text as it comes."""

from __future__ import annotations

import asyncio

from examples.agents import weather_agent
from polos import PolosClient


async def main() -> None:
    """Ask, and print each piece of the answer at once."""
    client = PolosClient()
    stream = await weather_agent.stream(client, "What's the weather in Tokyo?")
    async for chunk in stream.text_chunks:
        if chunk.reset:  # the model call failed and begins anew: forget what it had said
            print("\n[again]")
        print(chunk, end="", flush=True)
    print()


if __name__ == "__main__":
    asyncio.run(main())
