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
    agent = Agent("a", "openai", "m", guardrails=[], tools=[])
    assert agent.tools == ()
    assert (agent.provider_llm_api, agent.provider_kwargs) == (None, {})


@pytest.mark.parametrize("name", ["openai", "anthropic", "of-a_package.2", "x" * 64])
def test_any_name_may_be_that_of_a_provider_and_of_an_api(name: str) -> None:
    agent = Agent("a", name, "m", provider_llm_api=name)
    assert (agent.provider, agent.provider_llm_api) == (name, name)


def test_the_parameters_of_a_provider_are_copied() -> None:
    given: dict[str, Any] = {
        "top_k": 4,
        "extra_body": {"chat_template_kwargs": {"enable_thinking": False}},
        "extra_headers": {"X-Trace": "a b"},
    }
    agent = Agent("a", "vllm", "m", provider_kwargs=given)
    assert agent.provider_kwargs == given
    given["extra_body"]["chat_template_kwargs"]["enable_thinking"] = True
    assert agent.provider_kwargs["extra_body"] == {
        "chat_template_kwargs": {"enable_thinking": False}
    }


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ([1], "provider_kwargs must be a dict, not"),
        ({"a": {1, 2}}, "provider_kwargs: a must be a JSON value"),
        ({"a": {"b": [print]}}, "provider_kwargs: a must be a JSON value"),
        ({5: 1}, "provider_kwargs: 5 must be a JSON value"),
        ({"b": 1, "a": float("nan")}, "provider_kwargs: a must be a JSON value: "),
        ({"model": "x"}, "provider_kwargs must not contain model: set model"),
        ({"messages": []}, "must not contain messages: pass them to agent.run"),
        ({"stream": True}, "must not contain stream: the service always streams"),
        ({"tools": []}, "must not contain tools: set tools"),
        (
            {"api_key": "x"},
            "must not contain api_key: set provider_base_url, and POLOS_PROVIDER_KEYS",
        ),
        ({"extra_query": {}}, "must not contain extra_query: it is not supported"),
        ({"extra_body": {"model": "x"}}, "must not contain model: set model"),
        ({"extra_body": 5}, "extra_body must be a dict, not 5"),
        ({"extra_headers": ["a"]}, "extra_headers must be a dict, not"),
        (
            {"extra_headers": {"authorization": "x"}},
            "must not contain authorization: the service",
        ),
        (
            {"extra_headers": {"X-Api-Key": "x"}},
            "extra_headers must not contain X-Api-Key: the service",
        ),
        ({"extra_headers": {"Host": "x"}}, "extra_headers must not contain 'Host'"),
        (
            {"extra_headers": {"Content-Length": "1"}},
            "extra_headers must not contain 'Content-Length'",
        ),
        ({"extra_headers": {"a b": "x"}}, "extra_headers must not contain 'a b'"),
        ({"extra_headers": {"": "x"}}, "extra_headers must not contain ''"),
        ({"extra_headers": {"X": "a\r\nHost: b"}}, "must be printable ASCII text"),
        ({"extra_headers": {"X": "\u00fc"}}, "must be printable ASCII text"),
        ({"extra_headers": {"X": 5}}, "must be printable ASCII text"),
    ],
)
def test_parameters_that_are_not_a_providers_are_refused_with_the_way_to_set_them(
    given: Any, message: str
) -> None:
    with pytest.raises(DefinitionError) as raised:
        Agent("a", "openai", "m", provider_kwargs=given)
    assert message in str(raised.value)


@pytest.mark.parametrize(
    "option",
    [
        {"queue": "q"},
        {"on_start": print},
        {"on_end": print},
        {"on_agent_step_start": print},
        {"on_agent_step_end": print},
        {"on_tool_start": print},
        {"on_tool_end": print},
        {"guardrails": [print]},
        {"guardrail_max_retries": 3},
        {"compaction": True},
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
        ({"provider": ""}, "the provider '' must be 1 to 64 letters, digits"),
        ({"provider": "a b"}, "the provider 'a b' must be 1 to 64 letters, digits"),
        ({"provider": "x" * 65}, "the provider 'x"),
        ({"provider": None}, "the provider None must be 1 to 64 letters, digits"),
        ({"provider_llm_api": "a/b"}, "the provider_llm_api 'a/b' must be 1 to 64 letters, digits"),
        ({"provider_llm_api": 5}, "the provider_llm_api 5 must be 1 to 64 letters, digits"),
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
        ({"max_output_tokens": True}, "max_output_tokens must be an integer, at least 1, not True"),
        ({"provider_base_url": 8000}, "provider_base_url must be a string, not of type int"),
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
