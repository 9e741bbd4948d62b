"""Streams an agent in each of the ways."""

import asyncio
import logging
import os

from dotenv import load_dotenv

from polos import Agent, Polos, PolosClient, WorkflowContext, max_steps, tool

load_dotenv()


@tool(description="Count the words of a text")
async def count_words(ctx: WorkflowContext, text: str) -> dict:
    logging.getLogger("program").warning("counting for %s", ctx.execution_id)
    return {"words": len(text.split())}


writer = Agent(
    id="writer",
    provider="openai",
    model="gpt-4o-mini",
    system_prompt="You write short texts.",
    tools=[count_words],
    stop_conditions=[max_steps({"count": 5}), lambda ctx: len(ctx.steps) >= 4],
)


async def chunks(polos: PolosClient) -> None:
    result = await writer.stream(polos, "Write a line about rain.")
    print("run:", result.agent_run_id == result.id)
    print("topic:", result.topic == f"workflow/writer/{result.agent_run_id}")
    async for chunk in result.text_chunks:
        print(chunk, end="|", flush=True)
    print()


async def all_events(polos: PolosClient) -> None:
    result = await writer.stream(polos, "Write a line about snow and count its words.")
    async for event in result.events:
        if event.event_type == "text_delta":
            print("text:", event.data.get("content", ""))
        elif event.event_type == "tool_call":
            call = event.data.get("tool_call", {})
            print("call:", call["function"]["name"], call["function"]["arguments"], call["call_id"])
        elif event.event_type.startswith("agent_"):
            print("agent:", event.event_type, event.topic == result.topic)


async def whole(polos: PolosClient) -> None:
    result = await writer.stream(polos, "Write a line about wind.")
    print("text:", await result.text())
    print("status:", (await result.get())["status"])


async def main() -> None:
    async with Polos(
        project_id=os.environ.get("POLOS_PROJECT_ID"), port=0, log_file="polos.log"
    ) as polos:
        await chunks(polos)
        await all_events(polos)
        await whole(polos)


if __name__ == "__main__":
    asyncio.run(main())
