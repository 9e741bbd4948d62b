"""Follow an agent's progress by its lifecycle events."""

from __future__ import annotations

import asyncio

from examples.agents import weather_agent
from polos import PolosClient


async def main() -> None:
    """Ask, and tell what the agent is doing."""
    client = PolosClient()
    stream = await weather_agent.stream(client, "What's the weather in Tokyo?")
    async for event in stream.events:
        if event.event_type == "agent_start":
            print("🚀 Agent started")
        elif event.event_type == "step_start":
            print(f"⏳ Running step: {event.data['step_key']}")
        elif event.event_type == "tool_call":
            print(f"\n🔧 Calling tool: {event.data['tool_name']}", end="")
        elif event.event_type == "text_delta":
            print(event.data["content"], end="", flush=True)
        elif event.event_type == "step_retry":
            print(f"\n↻ {event.data['step_key']} starts over: {event.data['error']}")
        elif event.event_type == "step_finish":
            print(f"\n✓ Completed step: {event.data['step_key']}")
        elif event.event_type == "agent_finish":
            print(f"✅ Agent finished - Tokens: {event.data['usage']['total_tokens']}")
        elif event.event_type == "error":
            print(f"❌ Agent failed: {event.data['error']}")


if __name__ == "__main__":
    asyncio.run(main())
