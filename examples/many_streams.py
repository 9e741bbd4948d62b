"""Follow many runs at once, over one connection."""

from __future__ import annotations

import asyncio
import sys
from time import monotonic

from examples.agents import storyteller
from polos import PolosClient

STREAMS = 20


async def listen(client: PolosClient, number: int) -> tuple[str, int]:
    """Start a run and read it to its end; return its id, and how many pieces of text came."""
    stream = await storyteller.stream(client, f"Tell story number {number}.")
    pieces = 0
    async for chunk in stream.text_chunks:
        pieces += bool(chunk)
    return stream.id, pieces


async def main(streams: int) -> None:
    """Start the runs together, and tell what came."""
    began = monotonic()
    async with PolosClient() as client:
        done = await asyncio.gather(*(listen(client, number) for number in range(streams)))
    runs, pieces = {run for run, _ in done}, sum(pieces for _, pieces in done)
    print(f"{len(runs)} runs, {pieces} pieces of text, {monotonic() - began:.1f} s")


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]) if len(sys.argv) > 1 else STREAMS))
