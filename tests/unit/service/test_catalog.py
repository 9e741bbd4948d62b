"""What is loaded, by id."""

from __future__ import annotations

from dataclasses import replace
from typing import cast

import pytest

from polos_client.define.agent import Agent
from polos_client.define.scripted import script
from polos_client.define.tool import Tool, tool
from polos_client.errors import AgentNotFound, DefinitionError
from polos_service.agents.runnable import AgentRunnable
from polos_service.catalog import Catalog
from polos_service.runs.context import RunContext
from polos_service.runs.runnable import Runnable
from tests.support.agents import catalog
from tests.support.runs import Code


async def nothing(_ctx: RunContext) -> None:
    """Do nothing: the code of a run."""


def agent(id: str, *tools: Tool) -> Agent:
    return Agent(id, "scripted", script("fine"), tools=tools)


def named(id: str) -> Tool:
    """Return a new tool of this id."""

    @tool(id=id)
    def one() -> str:
        return id

    return one


def test_a_runnable_is_found_by_its_id() -> None:
    one, other = agent("b"), agent("a")
    loaded = catalog(one, other)
    assert (loaded.find("a", "default").id, loaded.find("a", "default").kind) == ("a", "agent")
    assert loaded.agent("b", "default") is one
    assert loaded.agents() == [other, one]
    assert set(loaded) == {"a", "b"}


def test_the_same_agent_again_changes_nothing() -> None:
    one = agent("a")
    loaded = catalog(one)
    loaded.add(replace(cast("AgentRunnable", loaded["a"])))
    assert loaded.agents() == [one]


def test_two_agents_with_one_id_are_refused() -> None:
    with pytest.raises(DefinitionError, match=r"^Two agents have the id 'a'"):
        catalog(agent("a"), agent("a"))


def test_runnables_of_other_kinds_share_the_ids() -> None:
    loaded = catalog(agent("a"))
    workflow: Runnable = Code(nothing, id="w")
    loaded.add(workflow)
    assert loaded.find("w", "default") is workflow
    assert [one.id for one in loaded.agents()] == ["a"]
    with pytest.raises(AgentNotFound, match="'w' is a workflow, not an agent"):
        loaded.agent("w", "default")
    with pytest.raises(DefinitionError, match="Two runnables have the id 'a'"):
        loaded.add(Code(nothing, id="a"))


def test_what_is_not_loaded_is_not_found_and_what_is_loaded_is_told() -> None:
    with pytest.raises(
        AgentNotFound, match=r"^There is no agent or workflow 'x'. Loaded: a, b\.$"
    ) as caught:
        catalog(agent("b"), agent("a")).find("x", "default")
    assert caught.value.metadata == {"agent_id": "x", "known": "a,b"}
    with pytest.raises(AgentNotFound, match="Loaded: none"):
        catalog().find("x", "default")


def test_a_tool_cannot_be_started_on_its_own() -> None:
    loaded = catalog(agent("a", named("search")))
    with pytest.raises(AgentNotFound, match="'search' is a tool, and a tool cannot be started"):
        loaded.find("search", "default")


def test_an_agent_of_another_project_is_not_known_as_a_tool() -> None:
    hr = agent("hr")
    every = catalog(hr, agent("desk", hr.as_tool()))
    loaded = Catalog(every.values(), projects={"hr": ["p"]})
    with pytest.raises(AgentNotFound, match=r"^There is no agent or workflow 'hr'. Loaded: desk"):
        loaded.find("hr", "q")


def test_agents_may_have_different_tools_of_one_id() -> None:
    loaded = catalog(agent("a", named("search")), agent("b", named("search")))
    assert len(loaded.tools()) == 2
    with pytest.raises(AgentNotFound, match="'search' is a tool"):
        loaded.find("search", "default")


def test_an_agent_may_have_the_id_of_a_tool() -> None:
    loaded = catalog(agent("search"), agent("a", named("search")))
    assert loaded.find("search", "default").kind == "agent"
