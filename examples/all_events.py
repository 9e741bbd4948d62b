"""Show everything that happens in a run: steps, tool calls with their results, text, tokens."""

from __future__ import annotations

import asyncio

from examples.agents import weather_agent
from polos import Event, PolosClient


def line(event: Event) -> str:
    """Return what an event says, in a line."""
    data = event.data
    match event.event_type:
        case "text_delta":
            return repr(data["content"])
        case "tool_call":
            function = data["tool_call"]["function"]
            return f"{function['name']}({function.get('arguments', '…')})"
        case "step_finish" if data["step_type"] == "tool":
            return f"{data['step_key']} -> {data.get('error') or data['data']['result']}"
        case "step_start" | "step_finish" | "step_retry":
            return str(data["step_key"])
        case "agent_finish":
            return f"{data['usage']['total_tokens']} tokens"
        case _:
            return str(data.get("error", ""))


async def main() -> None:
    """Ask, and print a line for each event: its place in the log, its type, what it says."""
    client = PolosClient()
    stream = await weather_agent.stream(client, "What's the weather in Tokyo?")
    async for event in stream.events:
        print(f"{event.sequence_id:>3}  {event.event_type:<12}  {line(event)}".rstrip())


if __name__ == "__main__":
    asyncio.run(main())
