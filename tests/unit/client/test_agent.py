"""Agent: what it takes, and what it refuses."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import BaseModel

from polos_client.define.agent import Agent
from polos_client.define.stop import max_steps
from polos_client.define.tool import tool
from polos_client.errors import DefinitionError


@tool
def add(a: int, b: int) -> int:
    return a + b


def test_an_agent_keeps_its_definition() -> None:
    agent = Agent("demo", "openai", "m", "what", "be brief", [add], 0.5, 10, "http://here/v1")
    assert (agent.id, agent.provider, agent.model) == ("demo", "openai", "m")
    assert (agent.description, agent.system_prompt) == ("what", "be brief")
    assert agent.tools == (add,)
    assert (agent.temperature, agent.max_output_tokens) == (0.5, 10)
    assert agent.provider_base_url == "http://here/v1"


def test_the_defaults_of_what_is_not_built_yet_are_taken() -> None:
    agent = Agent("a", "openai", "m", provider_llm_api="chat_completions", guardrails=[], tools=[])
    assert agent.tools == ()


@pytest.mark.parametrize(
    "option",
    [
        {"queue": "q"},
        {"output_schema": BaseModel},
        {"on_start": print},
        {"on_end": print},
        {"on_agent_step_start": print},
        {"on_agent_step_end": print},
        {"on_tool_start": print},
        {"on_tool_end": print},
        {"guardrails": [print]},
        {"guardrail_max_retries": 3},
        {"compaction": True},
        {"stream_to_workflow": True},
        {"provider_llm_api": "responses"},
    ],
    ids=lambda one: next(iter(one)),
)
def test_what_is_not_built_yet_is_refused(option: dict[str, Any]) -> None:
    with pytest.raises(DefinitionError, match=rf"Agent\({next(iter(option))}=.*not built yet"):
        Agent("a", "openai", "m", **option)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"id": "a b"}, "the agent id 'a b'"),
        ({"id": "x" * 129}, "the agent id"),
        ({"provider": "clever"}, "there is no provider 'clever'; there are openai and scripted"),
        ({"model": ""}, "the model must be the name of one"),
        ({"tools": [print]}, "print is a plain function: put @tool on it"),
        ({"tools": ["add"]}, "'add' is not a tool"),
        ({"tools": print}, r"tools must be a list, as tools=\[print\]"),
        ({"tools": add}, r"tools must be a list, as tools=\[add\]"),
        ({"tools": [add, add]}, "two tools have the id 'add'"),
        ({"temperature": 2.1}, "the temperature must be from 0 to 2"),
        ({"temperature": -0.1}, "the temperature must be from 0 to 2"),
        ({"temperature": "hot"}, "the temperature must be from 0 to 2, not 'hot'"),
        ({"max_output_tokens": "many"}, "max_output_tokens must be an integer"),
        ({"max_output_tokens": 0}, "max_output_tokens must be an integer, at least 1, not 0"),
        ({"stop_conditions": [max_steps]}, "max_steps needs a configuration: call it"),
        ({"stop_conditions": [add]}, "<Tool add> is not a stop condition"),
        ({"stop_conditions": [lambda: True]}, "is not a stop condition"),
        ({"stop_conditions": [BaseModel]}, "is not a stop condition"),
        ({"stop_conditions": ["max_steps"]}, "'max_steps' is not a stop condition"),
    ],
)
def test_a_value_that_cannot_be_used_is_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(DefinitionError, match=message):
        Agent(**{"id": "a", "provider": "openai", "model": "m", **fields})
