"""Wait for the whole text of an answer."""

from __future__ import annotations

import asyncio

from examples.agents import storyteller
from polos import PolosClient


async def main() -> None:
    """Ask, and print the answer when it is complete."""
    client = PolosClient()
    stream = await storyteller.stream(client, "Tell me about a lighthouse keeper.")
    print(await stream.text())


if __name__ == "__main__":
    asyncio.run(main())
