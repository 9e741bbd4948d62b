"""Runs a workflow that runs others and agents, and reads the events of all of them."""

import asyncio

from dotenv import load_dotenv
from workflows import panel

from polos import Polos
from polos.features import events

load_dotenv()


async def main():
    async with Polos(log_file="polos.log") as polos:
        handle = await panel.invoke(polos, {"topic": "Tea"})
        async for event in events.stream_workflow(polos, handle.root_workflow_id, handle.id):
            metadata = (event.data or {}).get("_metadata", {})
            if event.event_type == "text_delta" and metadata.get("workflow_id") == "writer":
                print(event.data["content"], end="|")
            if event.event_type == "workflow_finish" and metadata.get("execution_id") == handle.id:
                print()
        done = await handle.get(polos)
        for name, value in done["result"].items():
            print(f"{name}:", value)


if __name__ == "__main__":
    asyncio.run(main())
