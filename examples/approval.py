"""Approve what an agent does, and answer its question; service and agent in this process.

Here the program answers by itself. A real one shows `_form` to a person.
"""

from __future__ import annotations

import asyncio
from typing import Any

from examples.agents import model
from polos import Agent, Polos, create_ask_user_tool, scripted, tool


@tool(approval="always", editable=True)
async def pay(to: str, amount: float, currency: str = "EUR") -> str:
    """Pay an amount to somebody."""
    return f"Paid {amount:g} {currency} to {to}."


treasurer = Agent(
    "treasurer",
    *model(
        scripted.turn(scripted.call("ask_user", question="Who is to be paid?")),
        scripted.turn(
            scripted.call("pay", to="Ann", amount="100"),
            scripted.call("pay", to="Mallory", amount=9999),
        ),
        "Ann has got 50 EUR. Mallory has got nothing.",
    ),
    system_prompt="Ask the user who is to be paid, then pay each of them 100 EUR.",
    tools=[pay, create_ask_user_tool()],
)


def decide(data: dict[str, Any]) -> dict[str, Any]:
    """Answer what is shown, as a person would."""
    if data["_tool"] == "ask_user":
        return {"response": "Ann and Mallory"}
    arguments = data["_form"]["context"]["input"]
    if arguments["to"] == "Ann":
        return {"approved": True, "arguments": {**arguments, "amount": 50}}
    return {"approved": False, "feedback": "We do not know Mallory."}


async def main() -> None:
    """Start a run, and answer whatever it waits for."""
    async with Polos() as polos:
        stream = await treasurer.stream(polos, "Pay what is due.")
        async for event in stream.events:
            if event.event_type.startswith("suspend_"):
                form = event.data["_form"]
                print("asked:", form["title"], form.get("context", {}).get("input", ""))
                answer = decide(event.data)
                key = event.event_type.removeprefix("suspend_")
                await polos.resume(treasurer.id, stream.id, key, answer, wait_id=event.sequence_id)
                print("answered:", answer)
        result = await stream.result()
    for call in result.tool_results:
        print(call.tool_name, call.status, call.error or call.result)
    print(result.result)


if __name__ == "__main__":
    asyncio.run(main())
