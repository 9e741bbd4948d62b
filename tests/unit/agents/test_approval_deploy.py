"""The code of a tool is another when a person answers: what was approved is not stretched."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from polos.v1.error_pb2 import FailureReason
from polos_client.define.agent import Agent
from polos_client.define.scripted import call, script, turn
from polos_client.define.tool import Tool, tool
from polos_client.errors import InvalidRequest
from polos_service.store.sqlite import SqliteStore
from tests.support.people import input_of, working
from tests.unit.agents.test_approval import YES, failures, kinds_of

BAD_ARGUMENTS = FailureReason.FAILURE_REASON_TOOL_BAD_ARGUMENTS
NOT_FOUND = FailureReason.FAILURE_REASON_TOOL_NOT_FOUND


def agent_of(*tools: Tool) -> Agent:
    return Agent("a", "scripted", script(turn(call("pay", amount="100")), "done"), tools=tools)


@tool(id="pay", approval="always", editable=True)
async def old(amount: int, currency: str = "EUR") -> str:
    return f"{amount} {currency}"


@tool(id="pay", approval="always", editable=True)
async def other_default(amount: int, currency: str = "USD") -> str:
    return f"{amount} {currency}"


@tool(id="pay")
async def without_approval(amount: int, currency: str = "USD") -> str:
    return f"{amount} {currency}"


@tool(id="pay", approval="always")
async def one_more(amount: int, currency: str = "EUR", fee: int = 10) -> str:
    raise AssertionError


@tool(id="pay", approval="always")
async def one_less(amount: int) -> str:
    raise AssertionError


@tool(id="pay", approval="always")
async def other_type(amount: float, currency: str = "EUR") -> str:
    raise AssertionError


@tool(id="pay", approval="always")
async def needs_more(amount: int, currency: str, account: str) -> str:
    raise AssertionError


@pytest.mark.parametrize("answered", [False, True])
@pytest.mark.parametrize(
    ("after", "outcome"),
    [
        ([other_default], '"100 EUR"'),
        ([without_approval], '"100 EUR"'),
        ([one_more], BAD_ARGUMENTS),
        ([one_less], BAD_ARGUMENTS),
        ([other_type], BAD_ARGUMENTS),
        ([needs_more], BAD_ARGUMENTS),
        ([], NOT_FOUND),
    ],
)
async def test_the_tool_changes_while_a_person_thinks(
    store: SqliteStore, after: list[Tool], outcome: Any, *, answered: bool
) -> None:
    async with working(store, agent_of(old)) as person:
        (wait,) = await person.sees("pay/approve")
    if answered:
        await person.replies(wait, YES)
    async with working(store, agent_of(*after), run_id=person.run_id) as person:
        if not answered:
            await person.replies(wait, YES)
        events = await person.end()
    assert kinds_of(events).count("suspended") == kinds_of(events).count("resumed") == 1
    assert events[-1].agent_finish.result == "done"
    if isinstance(outcome, str):
        assert [e.step_finish.result_json for e in events if e.step_finish.step_key == "pay"] == [
            outcome
        ]
    else:
        assert failures(events) == {"pay": outcome}


async def test_changes_that_were_accepted_run_as_they_were_approved(store: SqliteStore) -> None:
    async with working(store, agent_of(old)) as person:
        await person.answers("pay/approve", {"approved": True, "arguments": {"amount": 5}})
    async with working(store, agent_of(other_default), run_id=person.run_id) as person:
        events = await person.end()
    assert [e.step_finish.result_json for e in events if e.step_finish.step_key == "pay"] == [
        '"5 EUR"'
    ]


async def test_changes_are_checked_against_the_tool_as_it_is_now(store: SqliteStore) -> None:
    async with working(store, agent_of(old)) as person:
        (wait,) = await person.sees("pay/approve")
    for after, why in ((one_more, "cannot be changed"), (None, "does not have the tool 'pay'")):
        tools = (after,) if after else ()
        async with working(store, agent_of(*tools), run_id=person.run_id) as person:
            with pytest.raises(InvalidRequest, match=why):
                await person.replies(wait, {"approved": True, "arguments": {"amount": 5}})
            assert list(await person.open()) == ["pay/approve"]


async def test_a_tool_that_needs_approval_by_now_is_not_called_without(store: SqliteStore) -> None:
    """Also if the call had begun before, and was interrupted."""
    begun = asyncio.Event()

    @tool(id="pay")
    async def hang(amount: int) -> str:
        begun.set()
        await asyncio.Event().wait()
        raise AssertionError

    async with working(store, agent_of(hang)) as person:
        await begun.wait()
    async with working(store, agent_of(old), run_id=person.run_id) as person:
        (wait,) = await person.sees("pay/approve")
        assert input_of(wait) == {"amount": 100, "currency": "EUR"}
        await person.replies(wait, {"approved": False})
        events = await person.end()
    assert failures(events) == {"pay": FailureReason.FAILURE_REASON_TOOL_REJECTED}


async def test_a_call_that_was_made_needs_no_approval_later(store: SqliteStore) -> None:
    begun = asyncio.Event()

    @tool
    async def hang() -> str:
        begun.set()
        await asyncio.Event().wait()
        raise AssertionError

    @tool(id="hang")
    async def quick() -> str:
        return "quick"

    text = script(turn(call("pay", amount=1)), turn(call("hang")), "done")
    before = Agent("a", "scripted", text, tools=[without_approval, hang])
    after = Agent("a", "scripted", text, tools=[old, quick])
    async with working(store, before) as person:
        await begun.wait()
    async with working(store, after, run_id=person.run_id) as person:
        events = await person.end()
    assert "suspended" not in kinds_of(events)
    assert events[-1].agent_finish.result == "done"


async def test_the_need_at_the_start_counts(store: SqliteStore) -> None:
    """The tool is loaded without approval before the model has asked for it."""
    begun = asyncio.Event()

    @tool
    async def hang() -> str:
        if not begun.is_set():
            begun.set()
            await asyncio.Event().wait()
        return "went on"

    text = script(turn(call("hang")), turn(call("pay", amount=1)), "done")
    before = Agent("a", "scripted", text, tools=[old, hang])
    after = Agent("a", "scripted", text, tools=[without_approval, hang])
    async with working(store, before) as person:
        await begun.wait()
    async with working(store, after, run_id=person.run_id) as person:
        (wait,) = await person.sees("pay/approve")
        assert input_of(wait) == {"amount": 1, "currency": "USD"}
        await person.replies(wait, YES)
        await person.end()
