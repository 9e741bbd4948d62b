"""Runs agents with tools to their end."""

import asyncio

from agents import restless_agent, weather_agent
from dotenv import load_dotenv

from polos import Polos

load_dotenv()


async def main():
    async with Polos(log_file="polos.log") as polos:
        result = await weather_agent.run(polos, "Should I take a coat in Oslo today?")
        print("answer:", result.result)
        print("steps:", result.total_steps, "tokens:", result.usage.total_tokens)
        for one in result.tool_results:
            print("tool:", one.tool_name, one.status, one.result)

        result = await restless_agent.run(polos, "Keep looking.", session_id=None, timeout=120.0)
        print("stopped by:", result.stop_condition, "after", result.total_steps)


if __name__ == "__main__":
    asyncio.run(main())
