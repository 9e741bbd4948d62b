"""`polos.testing`: agents of production play scripts, in this process."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from polos import (
    Agent,
    DefinitionError,
    RunFailed,
    WorkflowContext,
    events,
    scripted,
    tool,
    workflow,
)
from polos.testing import History, HistoryInvalid, Script, ScriptedPolos


@tool
async def get_weather(city: str) -> str:
    """Return the weather.

    Args:
        city: where.

    """
    return f"rain in {city}"


WEATHER = Agent(
    id="testing-weather",
    provider="anthropic",
    model="claude",
    system_prompt="Tell the weather.",
    tools=[get_weather],
)
CALL = scripted.call("get_weather", city="Oslo")


@workflow(id="testing-report")
async def report(ctx: WorkflowContext) -> str:
    told = await ctx.step.agent_invoke_and_wait("ask", WEATHER.with_input("Oslo?"))
    return str(told.result)


@pytest.fixture
async def polos() -> AsyncIterator[ScriptedPolos]:
    async with ScriptedPolos([WEATHER, report]) as service:
        yield service


async def test_an_agent_of_production_plays_a_script(polos: ScriptedPolos) -> None:
    script = Script(CALL, "It rains.")
    polos.play(WEATHER, script)
    stream = await WEATHER.stream(polos, "Weather?", max_tokens=50)
    assert await stream.text() == "It rains."
    first, second = script.asked
    assert (first.system, first.last) == (
        "Tell the weather.",
        {"role": "user", "content": "Weather?"},
    )
    assert (first.tools, first.options, first.run_turn) == (
        ["get_weather"],
        {"max_tokens": 50},
        1,
    )
    call, result = second.messages[-2:]
    assert (call["role"], call["tool_calls"][0]["name"]) == ("assistant", "get_weather")
    assert result == {
        "role": "tool",
        "tool_call_id": call["tool_calls"][0]["id"],
        "content": "rain in Oslo",
    }
    start = await anext(stream.events)
    assert (start.proto.agent_start.provider, start.proto.agent_start.model) == (
        "anthropic",
        "claude",
    )


async def test_a_recorded_run_is_played_again(polos: ScriptedPolos) -> None:
    polos.play(WEATHER, Script(scripted.turn("I look. ", CALL), scripted.turn("It rains.")))
    stream = await WEATHER.stream(polos, "Weather?")
    before = await stream.result()
    script = Script.recorded(await History.fetch(polos, stream.id))
    polos.play(WEATHER.id, script)
    again = await WEATHER.run(polos, "And now?")
    assert (again.result, again.usage) == (before.result, before.usage)
    assert again.tool_results == before.tool_results
    assert [one.last["content"] for one in script.asked] == ["And now?", "rain in Oslo"]


async def test_children_play_scripts_too(polos: ScriptedPolos) -> None:
    polos.play(WEATHER, Script("Dry."))
    assert await report.run(polos) == "Dry."
    handle = await report.invoke(polos)
    async for _ in events.stream_workflow(polos, workflow_run_id=handle.id):
        pass
    with pytest.raises(HistoryInvalid, match="is of a workflow, which has no model"):
        Script.recorded(await History.fetch(polos, handle.id))


async def test_an_agent_without_a_script_says_so(polos: ScriptedPolos) -> None:
    with pytest.raises(RunFailed, match=r"'testing-weather' has no script; give it one with"):
        await WEATHER.run(polos, "Weather?")


async def test_what_is_not_a_script_is_refused(polos: ScriptedPolos) -> None:
    with pytest.raises(DefinitionError, match=r"'It rains.' is not a script: make one with Script"):
        polos.play(WEATHER, "It rains.")  # type: ignore[arg-type]
    with pytest.raises(DefinitionError, match="5 must be a text, or a part such as"):
        Script(5)  # type: ignore[arg-type]


async def test_a_script_that_is_too_short_says_so(polos: ScriptedPolos) -> None:
    polos.play(WEATHER, Script(CALL))
    with pytest.raises(RunFailed, match="has no turn for model call 2"):
        await WEATHER.run(polos, "Weather?")


USERS_TESTS = """
from polos import Agent
from polos.sync import SyncClient
from polos.testing import Script

AGENT = Agent(id="users", provider="openai", model="gpt-4o-mini")


def test_without_a_loop(polos):
    polos.play(AGENT, Script("Hi."))
    assert SyncClient(polos).run(AGENT, "Hello").result == "Hi."


async def test_with_a_loop(polos):
    script = Script("Ho.")
    polos.play(AGENT, script)
    assert (await AGENT.run(polos, "Hello")).result == "Ho."
    assert len(script.asked) == 1
"""


def test_the_fixture_serves_tests_with_and_without_a_loop(tmp_path: Path) -> None:
    (tmp_path / "conftest.py").write_text('pytest_plugins = ["polos.testing.fixtures"]\n')
    (tmp_path / "test_users.py").write_text(USERS_TESTS)
    options = ["-q", "-W", "error", "-o", "asyncio_mode=auto", "-p", "no:cacheprovider"]
    options += ["-o", "asyncio_default_fixture_loop_scope=function"]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *options, str(tmp_path)],
        check=False,
        timeout=60,
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert "2 passed" in done.stdout, done.stdout + done.stderr
