"""The documentation's two whole programs, each as a process beside a service, as users have it."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path

import pytest

from tests.docs.scene import PROVIDERS, Ask, Scene, scene
from tests.support.process import PATIENCE, ServiceProcess, environment

APP = """
from polos import Agent, tool

@tool(description="The weather of a city")
async def get_weather(city: str) -> dict[str, str]:
    return {{"city": city, "sky": "clear"}}

weather_agent = Agent(id="weather-agent", tools=[get_weather], **{model!r})
"""

BASIC = """
import asyncio
from app import weather_agent
from polos import PolosClient

async def main():
    client = PolosClient()
    stream = await weather_agent.stream(client, "What's the weather in Tokyo?")

    async for chunk in stream.text_chunks:
        print(chunk, end="", flush=True)

    print("\\n")

if __name__ == "__main__":
    asyncio.run(main())
"""

INVOKE = """
import asyncio
import json
from app import weather_agent
from polos import PolosClient, events

client = PolosClient()

async def main():
    execution_handle = await weather_agent.invoke(
        client,
        payload={
            "input": "What is the weather in New York and Mumbai? Compare them.",
            "streaming": False,
        }
    )
    execution_id = execution_handle.id
    async for event in events.stream_workflow(client, workflow_run_id=execution_id):
        if event.event_type == "step_start":
            print(f"started {event.data.get('step_key')}")
        elif event.event_type == "step_finish":
            print(f"{json.dumps(event.data.get('data', {}).get('result', {}), indent=2)}")
        elif event.event_type == "agent_finish":
            print("finished")
        else:
            print(event.event_type)

asyncio.run(main())
"""

ASK_BOTH = [Ask("get_weather", {"city": city}) for city in ("New York", "Mumbai")]


async def output_of(program: str, stage: Scene, folder: Path, *turns: list[str | Ask]) -> str:
    """Serve an agent that plays the turns, run the program, and return what it printed."""
    app = folder / "app.py"
    app.write_text(APP.format(model=stage.model(*turns)))
    (folder / "program.py").write_text(program)
    async with ServiceProcess(app, folder / "runs.db") as service:
        running = await asyncio.create_subprocess_exec(
            *(sys.executable, "-W", "error", folder / "program.py"),
            env=environment(POLOS_ADDRESS=service.address),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        try:
            output, errors = await asyncio.wait_for(running.communicate(), PATIENCE)
        finally:
            if running.returncode is None:
                running.kill()
                await running.wait()
    assert (running.returncode, errors.decode()) == (0, "")
    return output.decode()


@pytest.mark.parametrize("provider", PROVIDERS)
async def test_basic_program_prints_the_answer_as_it_comes(provider: str, tmp_path: Path) -> None:
    async with scene(provider) as stage:
        said = await output_of(BASIC, stage, tmp_path, ["It is ", "clear ", "in Tokyo."])
    assert said == "It is clear in Tokyo.\n\n"


@pytest.mark.parametrize("provider", PROVIDERS)
async def test_run_that_does_not_stream_can_be_listened_to(provider: str, tmp_path: Path) -> None:
    async with scene(provider) as stage:
        said = await output_of(INVOKE, stage, tmp_path, [*ASK_BOTH], ["Both are clear."])
    before, calls = said.split("started llm:1\n")
    assert before == "agent_start\n"
    asked, tools = calls.split("started get_weather\nstarted get_weather:2\n")
    assert [call["function"]["name"] for call in json.loads(asked)["tool_calls"]] == [
        "get_weather",
        "get_weather",
    ]
    results, last = tools.split("started llm:2\n")
    for city in ("New York", "Mumbai"):
        assert json.dumps({"city": city, "sky": "clear"}, indent=2) in results
    answer = {"content": "Both are clear.", "tool_calls": []}
    assert last == f"{json.dumps(answer, indent=2)}\nfinished\n"
