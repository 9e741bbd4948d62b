"""Routes requests to agents, and reads the events of all of them in one stream."""

import asyncio

from dotenv import load_dotenv
from workflows import Request, coordinator, route

from polos import Polos
from polos.features import events

load_dotenv()


async def follow(polos, handle):
    """Print the text of agents that stream, until the root has ended."""
    texts = {}
    async for event in events.stream_workflow(polos, handle.root_workflow_id, handle.id):
        metadata = (event.data or {}).get("_metadata", {})
        if event.event_type == "text_delta":
            name = metadata["workflow_id"]
            texts[name] = texts.get(name, "") + event.data["content"]
        ends = event.event_type in ("workflow_finish", "agent_finish")
        if ends and metadata.get("execution_id") == handle.id:
            break
    for name, text in texts.items():
        print(f"{name} says: {text}")


async def main():
    async with Polos(log_file="polos.log") as polos:
        handle = await route.invoke(polos, Request(text="My lamp is broken."))
        await follow(polos, handle)
        done = await handle.get(polos)
        for name, value in done["result"].items():
            print(f"{name}:", value)
        handle = await coordinator.invoke(polos, {"input": "My lamp is broken."})
        await follow(polos, handle)
        done = await handle.get(polos)
        print("coordinator:", done["result"].result)
        for call in done["result"].tool_results:
            print(f"{call.tool_name}: {call.status} {call.result or call.error}")


if __name__ == "__main__":
    asyncio.run(main())
