"""Streams an agent whose result is a pydantic model."""

import asyncio
import json

from agents import Reasoning, thinking_agent
from dotenv import load_dotenv

from polos import Polos

load_dotenv()


async def solve(polos: Polos, problem: str) -> None:
    stream = await thinking_agent.stream(polos, problem)
    chunks = []
    async for chunk in stream.text_chunks:
        print(chunk, end="", flush=True)
        chunks.append(chunk)
    print()
    print("joined:", json.loads("".join(chunks))["answer"])
    result = await stream.result()
    reasoning: Reasoning = result.result
    for step in reasoning.steps:
        print(f"{step.number}. {step.thought} -> {step.conclusion}")
    print(f"{reasoning.answer} ({reasoning.confidence:.0%})")
    print("text:", Reasoning.model_validate_json(await stream.text()) == reasoning)


async def main():
    async with Polos(log_file="polos.log") as polos:
        await solve(polos, "How much is 2 + 3 * 4?")


if __name__ == "__main__":
    asyncio.run(main())
