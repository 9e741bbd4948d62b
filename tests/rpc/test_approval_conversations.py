"""What providers are told after a turn whose calls had different fates, in each API's own form."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from polos import Agent, Tool, create_ask_user_tool, tool
from tests.support import mock_anthropic, mock_responses
from tests.support.approver import NO, YES, Approver
from tests.support.mock_answers import call, say
from tests.support.mock_anthropic import MockAnthropic
from tests.support.mock_provider import MockProvider
from tests.support.service import serving


@tool(approval="always", editable=True)
async def pay(amount: int) -> str:
    return f"paid {amount}"


@tool(approval="always", approval_timeout=0.05)
async def dare() -> str:
    raise AssertionError


@tool
async def look() -> str:
    return "seen"


ASKED: list[tuple[str, dict[str, Any]]] = [
    ("pay", {"amount": 1}),
    ("pay", {"amount": 2}),
    ("pay", {"amount": 3}),
    ("dare", {}),
    ("ask_user", {"question": "Which?"}),
    ("look", {}),
]
"""The calls: approved, rejected, approved with another amount, expired, answered, and plain."""

IDS = [f"call_{index}" for index in range(len(ASKED))]

TOOLS: list[Tool] = [pay, dare, look, create_ask_user_tool()]


@pytest.fixture
async def anthropic() -> AsyncIterator[MockAnthropic]:
    async with MockAnthropic() as provider:
        yield provider


def check(told: list[tuple[str, str]]) -> None:
    """Assert that there is one result for each call, in the order of the calls."""
    assert [call_id for call_id, _ in told] == IDS
    texts = [text for _, text in told]
    assert texts[0] == "paid 1"
    assert "rejected" in texts[1]
    assert texts[1].endswith("No money.")
    assert '{"amount": 30}' in texts[2]
    assert texts[2].endswith("paid 30")
    assert "Nobody answered in time" in texts[3]
    assert json.loads(texts[4]) == {"response": "A"}
    assert texts[5] == "seen"


async def answered(folder: Path, agent: Agent) -> None:
    """Run the agent, while somebody answers; the last call first."""
    async with serving(folder, agent) as served:
        person = Approver(served.runs)
        run_id = await served.start(agent)
        await person.answers("ask_user/ask", {"response": "A"})
        await person.answers("pay:3/approve", {**YES, "arguments": {"amount": 30}})
        await person.answers("pay:2/approve", {**NO, "feedback": "No money."})
        await person.answers("pay/approve", YES)
        events = await served.events(run_id)
    assert events[-1].agent_finish.result == "Done."


async def test_chat_completions(tmp_path: Path, provider: MockProvider) -> None:
    calls = zip(IDS, ASKED, strict=True)
    provider.reply(
        *(call(*one, call_id=call_id, index=n) for n, (call_id, one) in enumerate(calls))
    )
    provider.reply(say("Done."))
    await answered(
        tmp_path, Agent("a", "openai", "mock", tools=TOOLS, provider_base_url=provider.url)
    )
    assistant, *results = provider.requests[1].body["messages"][1:]
    assert [one["id"] for one in assistant["tool_calls"]] == IDS
    made = [one["function"]["arguments"] for one in assistant["tool_calls"]]
    assert [json.loads(one) for one in made] == [arguments for _, arguments in ASKED]
    assert {one["role"] for one in results} == {"tool"}
    check([(one["tool_call_id"], one["content"]) for one in results])
    assert "approval" not in json.dumps(provider.requests[0].body["tools"])


async def test_responses(tmp_path: Path, provider: MockProvider) -> None:
    calls = enumerate(zip(IDS, ASKED, strict=True))
    items = [
        mock_responses.call(*one, call_id=call_id, item_id=f"fc_{n}") for n, (call_id, one) in calls
    ]
    provider.reply(mock_responses.responses(*items))
    provider.reply(mock_responses.responses(mock_responses.say("Done.")))
    agent = Agent(
        *("a", "openai", "mock"),
        tools=TOOLS,
        provider_base_url=provider.url,
        provider_llm_api="responses",
    )
    await answered(tmp_path, agent)
    said = provider.requests[1].body["input"]
    assert [one["call_id"] for one in said if one.get("type") == "function_call"] == IDS
    results = [one for one in said if one.get("type") == "function_call_output"]
    assert said[-len(IDS) :] == results
    check([(one["call_id"], one["output"]) for one in results])


async def test_messages(tmp_path: Path, anthropic: MockAnthropic) -> None:
    calls = zip(IDS, ASKED, strict=True)
    anthropic.reply(*(mock_anthropic.call(*one, call_id=call_id) for call_id, one in calls))
    anthropic.reply(mock_anthropic.say("Done."))
    agent = Agent("a", "anthropic", "mock", tools=TOOLS, provider_base_url=anthropic.url)
    await answered(tmp_path, agent)
    assistant, results = anthropic.requests[1].body["messages"][1:]
    assert [one["id"] for one in assistant["content"]] == IDS
    assert results["role"] == "user"
    told = results["content"]
    assert {one["type"] for one in told} == {"tool_result"}
    assert [bool(one.get("is_error")) for one in told] == [False, True, False, True, False, False]
    check([(one["tool_use_id"], text_of(one["content"])) for one in told])


def text_of(content: Any) -> str:
    return content if isinstance(content, str) else "".join(part["text"] for part in content)
