"""Start a run without streaming its text, and listen to its lifecycle from elsewhere."""

from __future__ import annotations

import asyncio
import json

from examples.agents import weather_agent
from polos import PolosClient, events


async def main() -> None:
    """Start a run, listen to it by its id, and ask how it stands at the end."""
    client = PolosClient()
    payload = {"input": "What is the weather in Tokyo?", "streaming": False}
    handle = await weather_agent.invoke(client, payload)
    # Any program that has the id can do this, now or when the run has long ended.
    async for event in events.stream_workflow(client, workflow_run_id=handle.id):
        if event.event_type == "step_start":
            print(f"Step started: {event.data['step_key']}")
        elif event.event_type == "step_finish":
            result = event.data.get("data", {}).get("result", {})
            print(f"Step finished: {json.dumps(result, ensure_ascii=False)}")
        elif event.event_type == "agent_finish":
            print("Agent finished")
    standing = await handle.get(client)
    print(f"The run is {standing['status']}: {standing['result'].result}")


if __name__ == "__main__":
    asyncio.run(main())
