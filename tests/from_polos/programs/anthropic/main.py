"""Asks Claude, with a tool."""

import asyncio

from dotenv import load_dotenv

from polos import Agent, Polos, WorkflowContext, tool

load_dotenv()


@tool(description="Say how warm it is in a city")
async def get_weather(ctx: WorkflowContext, city: str) -> dict:
    return {"city": city, "degrees": 21}


claude = Agent(id="claude", provider="anthropic", model="claude-sonnet-4-5", tools=[get_weather])


async def main() -> None:
    async with Polos(port=0, log_file="polos.log") as polos:
        result = await claude.stream(polos, "Do I need a coat in Oslo?")
        async for chunk in result.text_chunks:
            print(chunk, end="|")
        print()
        print((await result.result()).usage.input_tokens)


asyncio.run(main())
