"""Approvals over real gRPC: who sees what waits, what is accepted, and how the run goes on."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from polos import Agent, InvalidRequest, create_ask_user_tool, scripted, tool
from polos.v1 import agent_service_pb2 as agents_pb
from polos.v1 import run_service_pb2 as pb
from polos.v1.event_pb2 import Event
from polos.v1.run_pb2 import Wait
from polos_client.define.tool import Tool
from polos_client.errors import AlreadyAnswered, PolosError, WaitExpired, WaitNotOpen
from tests.support.approver import NO, YES, Approver
from tests.support.service import serving

SCRIPT = scripted.script(
    scripted.turn("I will pay. ", scripted.call("pay", amount="100")), "It is paid."
)


def payer(**options: Any) -> tuple[Tool, list[int]]:
    """Return a tool that pays, and the list of what it has paid."""
    paid: list[int] = []

    @tool(approval="always", **options)
    async def pay(amount: int) -> str:
        paid.append(amount)
        return f"paid {amount}"

    return pay, paid


def names(events: list[Event]) -> list[str]:
    return [event.WhichOneof("payload") or "" for event in events]


async def test_the_service_tells_which_tools_need_approval(tmp_path: Path) -> None:
    pay, _ = payer()
    agent = Agent("payer", "scripted", SCRIPT, tools=[pay, create_ask_user_tool()])
    async with serving(tmp_path, agent) as served:
        found = await served.agents.GetAgent(agents_pb.GetAgentRequest(agent_id="payer"))
    assert [(one.name, one.approval) for one in found.agent.tools] == [
        ("pay", True),
        ("ask_user", False),
    ]


async def test_an_approval_is_listed_answered_and_gone(tmp_path: Path) -> None:
    pay, paid = payer()
    async with serving(tmp_path, Agent("payer", "scripted", SCRIPT, tools=[pay])) as served:
        person = Approver(served.runs)
        run_id = await served.start(Agent("payer", "scripted", SCRIPT, tools=[pay]))
        (wait,) = await person.sees("pay/approve")
        assert (wait.run_id, wait.workflow_id) == (run_id, "payer")
        assert json.loads(wait.data_json)["_form"]["context"]["input"] == {"amount": 100}
        run = (await served.runs.GetRun(pb.GetRunRequest(run_id=run_id))).run
        assert [one.wait_id for one in run.open_waits] == [wait.wait_id]
        with pytest.raises(InvalidRequest, match="wait_id"):
            await person.replies(wait, YES, wait_id=0, step_key="pay/approve")
        wrongs: list[Any] = [{}, {"approved": "yes"}, [], {"approved": True, "tool": "other"}]
        for wrong in wrongs:
            with pytest.raises(InvalidRequest):
                await person.replies(wait, wrong)
        await person.replies(wait, YES, request_id="mine")
        assert await person.open() == []
        events = await served.events(run_id)
    assert paid == [100]
    resumed = next(event.resumed for event in events if event.HasField("resumed"))
    assert (resumed.wait_id, resumed.request_id) == (wait.wait_id, "mine")
    assert events[-1].agent_finish.result == "It is paid."


async def test_one_of_twenty_racing_answers_is_accepted(tmp_path: Path) -> None:
    pay, paid = payer()
    all_answered = asyncio.Event()

    @tool
    async def hold() -> None:
        await all_answered.wait()

    turn = scripted.turn(scripted.call("pay", amount=100), scripted.call("hold"))
    agent = Agent("payer", "scripted", scripted.script(turn, "Done."), tools=[pay, hold])
    async with serving(tmp_path, agent) as served:
        person = Approver(served.runs)
        run_id = await served.start(agent)
        (wait,) = await person.sees("pay/approve")

        async def answer(number: int) -> PolosError | None:
            try:
                await person.replies(wait, YES if number % 2 else NO, request_id=f"r{number}")
            except AlreadyAnswered as error:
                return error
            return None

        refusals = await asyncio.gather(*(answer(number) for number in range(20)))
        all_answered.set()
        (winner,) = [number for number, error in enumerate(refusals) if error is None]
        events = await served.events(run_id)
    resumed = [event.resumed for event in events if event.HasField("resumed")]
    assert [one.request_id for one in resumed] == [f"r{winner}"]
    assert paid == [100] * (winner % 2)


async def test_an_answer_for_one_call_does_nothing_for_another(tmp_path: Path) -> None:
    pay, paid = payer()
    turn = scripted.turn(*(scripted.call("pay", amount=n) for n in (1, 2)))
    agent = Agent("payer", "scripted", scripted.script(turn, "Done."), tools=[pay])
    async with serving(tmp_path, agent) as served:
        run_id = await served.start(agent)
        person = Approver(served.runs)
        first, second = await person.sees("pay/approve", "pay:2/approve")
        with pytest.raises(WaitNotOpen):
            await person.replies(second, YES, step_key="pay/approve")
        await person.replies(second, NO)
        with pytest.raises(AlreadyAnswered):
            await person.replies(second, YES)
        assert [one.step_key for one in await person.open()] == ["pay/approve"]
    async with serving(tmp_path, agent) as served:
        await Approver(served.runs).replies(first, YES)
        await served.events(run_id)
    assert paid == [1]


async def test_a_late_answer_is_refused_and_nothing_is_left_open(tmp_path: Path) -> None:
    pay, paid = payer(approval_timeout=0.2)
    agent = Agent("payer", "scripted", SCRIPT, tools=[pay])
    async with serving(tmp_path, agent) as served:
        person = Approver(served.runs)
        run_id = await served.start(agent)
        seen = [event async for event in served.follow(run_id)]
        told = next(event for event in seen if event.HasField("suspended"))
        wait = Wait(run_id=run_id, wait_id=told.sequence, step_key="pay/approve")
        assert await person.open() == []
        with pytest.raises((WaitExpired, WaitNotOpen)):
            await person.replies(wait, YES)
    assert paid == []
    assert names(seen).count("resumed") == 1
    (failure,) = [e.step_finish.failure for e in seen if e.step_finish.HasField("failure")]
    assert "Nobody answered in time" in failure.message


async def test_a_parked_agent_streams_on(tmp_path: Path) -> None:
    """A reader who came before the park sees the rest; no model call and no text is repeated."""
    pay, _ = payer()
    agent = Agent("payer", "scripted", SCRIPT, tools=[pay])
    async with serving(tmp_path, agent) as served:
        served.service._executor._threshold = 0.02
        person = Approver(served.runs)
        stream = await agent.stream(served.client, "Pay.")
        reading = asyncio.create_task(collect(stream))
        await person.parked(stream.id)
        await person.answers("pay/approve", YES)
        assert await reading == "I will pay. It is paid."
        result = await stream.result()
        events = await served.events(stream.id)
    assert result.result == "It is paid."
    assert result.total_steps == 2
    starts = [e.step_start.step_key for e in events if e.HasField("step_start")]
    assert starts == ["llm:1", "pay", "llm:2"]
    assert "step_retry" not in names(events)
    used = [e.step_finish.usage.total_tokens for e in events if e.step_finish.HasField("usage")]
    assert events[-1].agent_finish.usage.total_tokens == sum(used)


async def collect(stream: Any) -> str:
    return "".join([str(chunk) async for chunk in stream.text_chunks])


async def test_a_cancelled_run_has_no_open_waits(tmp_path: Path) -> None:
    pay, paid = payer()
    agent = Agent("payer", "scripted", SCRIPT, tools=[pay])
    async with serving(tmp_path, agent) as served:
        person = Approver(served.runs)
        run_id = await served.start(agent)
        (wait,) = await person.sees("pay/approve")
        await served.runs.CancelRun(pb.CancelRunRequest(run_id=run_id))
        events = await served.events(run_id)
        assert await person.open() == []
        with pytest.raises(WaitNotOpen):
            await person.replies(wait, YES)
    assert names(events)[-1] == "run_cancelled"
    assert paid == []


async def test_a_question_is_answered_by_its_key(tmp_path: Path) -> None:
    text = scripted.script(scripted.turn(scripted.call("ask_user", question="Which?")), "Thanks.")
    agent = Agent("asker", "scripted", text, tools=[create_ask_user_tool()])
    async with serving(tmp_path, agent) as served:
        person = Approver(served.runs)
        run_id = await served.start(agent)
        (wait,) = await person.sees("ask_user/ask")
        await person.replies(wait, {"response": "A"}, wait_id=0, step_key="ask_user/ask")
        assert json.loads(wait.data_json)["_source"] == "ask_user"
        await served.events(run_id)
        result = (await served.runs.GetRun(pb.GetRunRequest(run_id=run_id))).run
    assert [json.loads(one.result_json) for one in result.tool_results] == [{"response": "A"}]
