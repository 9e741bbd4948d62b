"""Get an answer with its tool results, tokens, cost and time."""

from __future__ import annotations

import asyncio

from examples.agents import weather_agent
from polos import PolosClient


async def main() -> None:
    """Ask, and print what the run was made of."""
    client = PolosClient()
    stream = await weather_agent.stream(client, "What's the weather in Tokyo?")
    result = await stream.result()

    print(f"Result: {result.result}")
    print(f"Finish reason: {result.finish_reason}")
    print(f"Total steps: {result.total_steps}")
    print(f"Tokens used: {result.usage.total_tokens}")
    print(f"Cost: {'unknown' if result.cost is None else f'{result.cost:.6f} USD'}")
    for tool_call in result.tool_results:
        print(f"Tool: {tool_call.tool_name} {tool_call.status}")
        print(f"Input: {tool_call.input}")
        print(f"Output: {tool_call.result}")


if __name__ == "__main__":
    asyncio.run(main())
