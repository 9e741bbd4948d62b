"""Watch an agent pass questions on to others, whose text streams; all of them in this process.

The others are its tools. One of them has a tool that uses durable steps itself.
"""

from __future__ import annotations

import asyncio

from examples.agents import model
from polos import Agent, Polos, WorkflowContext, scripted, tool


@tool
async def open_ticket(ctx: WorkflowContext, text: str) -> str:
    """Open a ticket."""
    number = await ctx.step.random("number")
    await ctx.step.publish_workflow_event("tell", {"text": text}, "ticket_opened")
    return f"ticket {int(number * 1000)}"


sales = Agent(
    "sales",
    *model("A new lamp costs 20 EUR."),
    description="Answers questions about prices",
    system_prompt="A lamp costs 20 EUR. Answer in one sentence.",
    stream_to_workflow=True,
)
support = Agent(
    "support",
    *model(
        scripted.turn(scripted.call("open_ticket", text="The lamp is broken.")),
        "A technician will look at the lamp.",
    ),
    description="Helps with what is broken",
    system_prompt="Open a ticket, then answer in one sentence.",
    tools=[open_ticket],
    stream_to_workflow=True,
)
desk = Agent(
    "desk",
    *model(
        scripted.turn(
            scripted.call("support", input="The lamp is broken."),
            scripted.call("sales", input="What does a new lamp cost?"),
        ),
        "We will look at it; a new one costs 20 EUR.",
    ),
    system_prompt="Pass each question on to the agent that it is for, then answer in one sentence.",
    tools=[sales, support],
)


async def main() -> None:
    """Ask the desk two things, and print who says what."""
    said: dict[str, str] = {}
    async with Polos() as polos:
        stream = await desk.stream(polos, "My lamp is broken. What does a new one cost?")
        async for event in stream.events:
            who = event.data["_metadata"]["workflow_id"]
            if event.event_type == "text_delta":
                said[who] = said.get(who, "") + event.data["content"]
            elif event.event_type == "ticket_opened":
                print("a ticket:", event.data["text"])
        result = await stream.result()
    for who in sorted(said):
        print(f"{who}: {said[who]}")
    print(sorted(f"{one.tool_name} {one.status}" for one in result.tool_results))


if __name__ == "__main__":
    asyncio.run(main())
