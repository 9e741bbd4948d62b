"""Tools that ask a person: the answer is the result of the call."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from polos.v1.error_pb2 import FailureReason
from polos.v1.event_pb2 import WaitKind
from polos_client.define.agent import Agent
from polos_client.define.ask import RESPONSE, TITLE, create_ask_user_tool
from polos_client.define.context import WorkflowContext
from polos_client.define.scripted import call, script, turn
from polos_client.define.tool import tool
from polos_client.errors import AlreadyAnswered
from polos_service.store.sqlite import SqliteStore
from tests.support.agents import Recorder
from tests.support.people import working
from tests.unit.agents.test_approval import agent_of, failures, kinds_of, results

TOOL_FAILED = FailureReason.FAILURE_REASON_TOOL_FAILED


async def test_the_answer_of_a_person_is_the_result(store: SqliteStore) -> None:
    model = Recorder()
    agent = agent_of([create_ask_user_tool()], call("ask_user", question="Which city?"))
    async with working(store, agent, model) as person:
        wait = await person.answers("ask_user/ask", {"response": "Oslo"})
        events = await person.end()
    assert json.loads(wait.data_json) == {
        "_form": {"title": TITLE, "description": "Which city?", "fields": [RESPONSE]},
        "_source": "ask_user",
        "_tool": "ask_user",
    }
    assert wait.kind == WaitKind.WAIT_KIND_SUSPEND
    assert [json.loads(said) for said in results(model)] == [{"response": "Oslo"}]
    assert kinds_of(events)[4:8] == ["suspended", "resumed", "step_start", "step_finish"]
    step = next(e.step_finish for e in events if e.step_finish.step_key == "ask_user")
    assert json.loads(step.result_json) == {"response": "Oslo"}


async def test_the_model_describes_the_form(store: SqliteStore) -> None:
    fields = [
        {"key": "city", "type": "text", "label": "City", "required": True},
        {
            "key": "class",
            "type": "select",
            "label": "Class",
            "required": False,
            "options": [{"label": "First", "value": "1"}],
        },
    ]
    asked = call("ask_user", question="Where?", title="A trip", fields=fields)
    async with working(store, agent_of([create_ask_user_tool()], asked)) as person:
        wait = await person.answers("ask_user/ask", {"city": "Oslo", "class": "1"})
        await person.end()
    form = json.loads(wait.data_json)["_form"]
    assert (form["title"], form["fields"]) == ("A trip", fields)


async def test_two_questions_of_one_turn_are_answered_alone(store: SqliteStore) -> None:
    model = Recorder()
    calls = call("ask_user", question="One?"), call("ask_user", question="Two?")
    async with working(store, agent_of([create_ask_user_tool()], *calls), model) as person:
        second = await person.answers("ask_user:2/ask", {"response": "2"})
        with pytest.raises(AlreadyAnswered):
            await person.replies(second, {"response": "3"})
        await person.answers("ask_user/ask", {"response": "1"})
        await person.end()
    assert [json.loads(said)["response"] for said in results(model)] == ["1", "2"]


async def test_a_wrong_question_is_shown_to_nobody(store: SqliteStore) -> None:
    model = Recorder()
    calls = call("ask_user"), call("ask_user", question="?" * 300_000)
    async with working(store, agent_of([create_ask_user_tool()], *calls), model) as person:
        events = await person.end()
    assert "suspended" not in kinds_of(events)
    assert failures(events) == {
        "ask_user": FailureReason.FAILURE_REASON_TOOL_BAD_ARGUMENTS,
        "ask_user:2": FailureReason.FAILURE_REASON_OUTPUT_TOO_LARGE,
    }


@pytest.mark.parametrize("asks", ["raises", "no object", "steps"])
async def test_a_tool_whose_question_fails(store: SqliteStore, asks: str) -> None:
    @tool(asks=True)
    async def inquire(ctx: WorkflowContext) -> Any:
        if asks == "raises":
            raise LookupError("nobody is there")
        if asks == "steps":
            await ctx.step.suspend("more")
        return ["a list"]

    async with working(store, agent_of([inquire], call("inquire"))) as person:
        events = await person.end()
    assert "suspended" not in kinds_of(events)
    assert failures(events) == {"inquire": TOOL_FAILED}


async def test_a_question_is_not_asked_again_after_a_restart(store: SqliteStore) -> None:
    asked: list[str] = []

    @tool(asks=True)
    def inquire(ctx: WorkflowContext, topic: str) -> dict[str, Any]:
        asked.append(ctx.idempotency_key)
        return {"_form": {"title": topic}}

    agent = agent_of([inquire], call("inquire", topic="rain"))
    async with working(store, agent, threshold=0.02) as person:
        await person.parks()
        await person.answers("inquire/ask", ["any", "value"])
        events = await person.end()
    assert asked == [f"{person.run_id}/inquire"]
    assert kinds_of(events).count("suspended") == 1
    step = next(e.step_finish for e in events if e.step_finish.step_key == "inquire")
    assert json.loads(step.result_json) == ["any", "value"]


async def test_a_slow_question_does_not_park_its_run_again_and_again(store: SqliteStore) -> None:
    begun, on = asyncio.Event(), asyncio.Event()

    @tool(asks=True)
    async def inquire() -> dict[str, Any]:
        begun.set()
        await on.wait()
        return {}

    text = script(turn(call("ask_user", question="One?"), call("inquire")), "done")
    agent = Agent("a", "scripted", text, tools=[create_ask_user_tool(), inquire])
    async with working(store, agent, threshold=0.01) as person:
        await begun.wait()
        await person.sees("ask_user/ask")
        begun.clear()
        await asyncio.sleep(0.1)
        assert not begun.is_set()
        on.set()
        await person.sees("ask_user/ask", "inquire/ask")
        await person.answers("inquire/ask", {})
        await person.answers("ask_user/ask", {})
        await person.end()
