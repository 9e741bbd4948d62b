"""Deadlines: each ends what it bounds, for its own reason; a call goes before its agent."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from polos import Agent, Deadlines, DefinitionError, InvalidRequest, RunTimeout, tool
from polos.v1 import run_service_pb2 as pb
from polos_client.define.scripted import call, pause, say, script, turn
from polos_client.errors import RunFailed
from polos_service.runs import retries
from tests.support.service import serving


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retries, "BACKOFF_BASE", 0.001)


def slow(*parts: object, deadlines: Deadlines) -> Agent:
    return Agent("slow", "scripted", script(turn(*parts)), deadlines=deadlines)  # type: ignore[arg-type]  # parts


async def test_a_model_that_says_nothing_is_tried_again_and_then_fails(tmp_path: Path) -> None:
    agent = slow(pause(), deadlines=Deadlines(first_token=0.05))
    async with serving(tmp_path, agent) as served:
        with pytest.raises(RunFailed, match=r"sent nothing for 0\.05 s") as failed:
            await agent.run(served.client, "Go.", timeout=30)
    assert failed.value.reason == "model_first_token_timeout"
    assert failed.value.retryable


async def test_a_model_that_falls_silent_is_taken_back_and_tried_again(tmp_path: Path) -> None:
    text = script(turn(say("Hal"), pause(), retried=[say("Hello.")]))
    agent = Agent("stalls", "scripted", text, deadlines=Deadlines(token_gap=0.05))
    async with serving(tmp_path, agent) as served:
        stream = await agent.stream(served.client, "Go.")
        reasons = [e.data["reason"] async for e in stream.events if e.event_type == "step_retry"]
        assert reasons == ["model_stalled"]
        assert await stream.text() == "Hello."


async def test_a_tool_that_takes_too_long_is_told_to_the_model(tmp_path: Path) -> None:
    @tool
    async def wait() -> None:
        await asyncio.Event().wait()

    text = script(call("wait"), "It took too long.")
    agent = Agent("waits", "scripted", text, tools=[wait], deadlines=Deadlines(tool_call=0.05))
    async with serving(tmp_path, agent) as served:
        result = await agent.run(served.client, "Go.", timeout=30)
    assert result.result == "It took too long."
    assert result.tool_results[0].error == (
        "The tool wait took longer than 0.05 s and was cancelled."
    )


async def test_an_agent_bounds_its_runs(tmp_path: Path) -> None:
    agent = slow(pause(), deadlines=Deadlines(run=0.1))
    async with serving(tmp_path, agent) as served:
        stream = await agent.stream(served.client, "Go.")
        with pytest.raises(RunTimeout):
            await stream.result()


@pytest.mark.parametrize("name", ["first_token", "run"])
async def test_a_call_goes_before_its_agent(tmp_path: Path, name: str) -> None:
    agent = slow(pause(), deadlines=Deadlines(first_token=1000, run=1000))
    async with serving(tmp_path, agent) as served:
        async with asyncio.timeout(60):
            stream = await agent.stream(served.client, "Go.", deadlines=Deadlines(**{name: 0.05}))
            with pytest.raises(RunFailed if name == "first_token" else RunTimeout):
                await stream.result()


@pytest.mark.parametrize("value", [0, -1, 1e10, float("nan")])
def test_a_deadline_out_of_bounds_is_refused(value: float) -> None:
    with pytest.raises(DefinitionError, match="tool_call"):
        Deadlines(tool_call=value)


async def test_the_service_refuses_a_deadline_out_of_bounds(tmp_path: Path) -> None:
    agent = slow(say("Hi."), deadlines=Deadlines())
    async with serving(tmp_path, agent) as served:
        request = pb.CreateRunRequest(agent_id="slow", input="Go.")
        request.options.deadlines.token_gap.FromSeconds(10**10)
        with pytest.raises(InvalidRequest) as refused:
            await served.client.create_run(request)
    assert list(refused.value.violations) == ["deadlines.token_gap"]
