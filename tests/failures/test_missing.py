"""Runs whose agent or tool is gone when they are resumed."""

from __future__ import annotations

from pathlib import Path

from polos import Agent
from polos.v1 import run_service_pb2 as pb
from polos.v1.run_pb2 import RunState
from polos_client.define.scripted import call as calls
from tests.failures.scene import serving_at
from tests.support.control import Gate
from tests.support.mock_answers import call, say
from tests.support.mock_provider import MockProvider
from tests.support.service import answer_of, scripted, serving

FINE = scripted("fine", id="fine")
GATED = (calls("gate"), "done")


async def test_a_resumed_run_whose_tool_is_gone_tells_the_model_and_goes_on(
    tmp_path: Path,
) -> None:
    gate = Gate("gate")
    before = Agent("helper", "openai", "mock", tools=[gate.tool])
    after = Agent("helper", "openai", "mock")
    async with MockProvider() as provider:
        provider.reply(call("gate", {}))
        async with serving_at(tmp_path, provider.url, before) as served:
            run_id = await served.start(before)
            await gate.reached()
        provider.reply(say("Without it."))
        async with serving_at(tmp_path, provider.url, after) as served:
            end = answer_of(await served.events(run_id))
            run = (await served.runs.GetRun(pb.GetRunRequest(run_id=run_id))).run
        told = provider.requests[1].body["messages"][-1]
    assert end.agent_finish.result == "Without it."
    assert run.state == RunState.RUN_STATE_COMPLETED
    assert [one.failure.message for one in run.tool_results] == [
        "There is no tool 'gate'. Tools: none."
    ]
    assert told["content"] == "Error: There is no tool 'gate'. Tools: none."
    assert gate.calls == 1


async def test_a_run_whose_agent_is_gone_waits_unharmed(tmp_path: Path) -> None:
    gate = Gate("gate")
    waiting = scripted(*GATED, id="waiting", tools=(gate.tool,))
    async with serving(tmp_path, waiting) as served:
        run_id = await served.start(waiting)
        await gate.reached()
    async with serving(tmp_path, FINE) as served:
        assert (await FINE.run(served.client, "Go.")).result == "fine"
        run = (await served.runs.GetRun(pb.GetRunRequest(run_id=run_id))).run
        assert run.state == RunState.RUN_STATE_QUEUED
        assert not run.HasField("outcome")
    gate.opened.set()
    async with serving(tmp_path, waiting) as served:
        assert answer_of(await served.events(run_id)).agent_finish.result == "done"
