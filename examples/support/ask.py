"""Ask the support agent as a customer: `python -m examples.support.ask [TEXT]`."""

from __future__ import annotations

import asyncio
import sys

from examples.support.app import support
from polos import Event, PolosClient

QUESTION = "The lamp of my order 1207 arrived broken. I want my money back."


def show(event: Event, run_id: str) -> None:
    """Print what a customer sees, and for the colleague what is to be approved."""
    if event.event_type == "text_delta":
        print(event.data["content"], end="", flush=True)
    elif event.event_type == "step_retry":  # the call starts over: forget what it had said
        print("\n[again]")
    elif event.event_type.startswith("suspend_"):
        shown = event.data["_form"]["context"]
        print(f"\n[{shown['tool']} waits for approval: {shown['input']}]")
        print(f"[polos runs approve {run_id}]", flush=True)


async def main() -> None:
    """Ask, wait for as long as it takes, and print what the tools did."""
    client = PolosClient(reconnect_timeout=600)
    stream = await support.stream(client, " ".join(sys.argv[1:]) or QUESTION)
    async for event in stream.events:
        show(event, stream.id)
    result = await stream.result()
    print()
    for call in result.tool_results:
        print(f"{call.tool_name} {call.status}: {call.error or call.result}")


if __name__ == "__main__":
    asyncio.run(main())
