"""Drop a stream in the middle, and come back later without missing or repeating a word."""

from __future__ import annotations

import asyncio

from examples.agents import storyteller
from polos import PolosClient, events

WORDS = 5


async def begin() -> tuple[str, int]:
    """Start a run, leave after some words, and return what is needed to come back."""
    async with PolosClient() as client:
        stream = await storyteller.stream(client, "Tell me about a lighthouse keeper.")
        words = 0
        async for event in stream.events:
            if event.event_type == "text_delta":
                print(event.data["content"], end="", flush=True)
                words += 1
            if words == WORDS:
                return stream.id, event.sequence_id
    raise SystemExit("The story was too short to leave it in the middle.")


async def go_on(run_id: str, cursor: int) -> None:
    """Read on after the cursor. The run went on meanwhile: nobody had to listen."""
    async with PolosClient() as client:
        run = events.stream_workflow(client, workflow_run_id=run_id, last_sequence_id=cursor)
        async for event in run:
            if event.event_type == "text_delta":
                print(event.data["content"], end="", flush=True)
    print()


async def main() -> None:
    """Leave a run and come back to it, as two programs would."""
    run_id, cursor = await begin()
    print(f"\n[left after event {cursor}]")
    await go_on(run_id, cursor)


if __name__ == "__main__":
    asyncio.run(main())
