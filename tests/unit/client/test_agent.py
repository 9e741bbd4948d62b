"""Agent, workflow and stop conditions: what they take, and what they refuse."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import BaseModel

from polos_client.define.agent import Agent
from polos_client.define.stop import (
    ConfigurableStopCondition,
    ExecutedToolConfig,
    HasTextConfig,
    MaxStepsConfig,
    MaxTokensConfig,
    Step,
    StopCondition,
    StopConditionContext,
    executed_tool,
    has_text,
    max_steps,
    max_tokens,
    restore,
    stop_condition,
)
from polos_client.define.tool import tool
from polos_client.define.workflow import workflow
from polos_client.errors import DefinitionError
from polos_client.result import ToolResult, Usage


@tool
def add(a: int, b: int) -> int:
    return a + b


def context(*steps: Step) -> StopConditionContext:
    return StopConditionContext(steps=list(steps), agent_id="a", agent_run_id="r")


def ran(name: str, *, failed: bool = False) -> ToolResult:
    status: Any = "failed" if failed else "completed"
    return ToolResult(tool_name=name, status=status, tool_call_id="c")


def test_an_agent_keeps_its_definition() -> None:
    agent = Agent("demo", "openai", "m", "what", "be brief", [add], 0.5, 10, "http://here/v1")
    assert (agent.id, agent.provider, agent.model) == ("demo", "openai", "m")
    assert (agent.description, agent.system_prompt) == ("what", "be brief")
    assert agent.tools == (add,)
    assert (agent.temperature, agent.max_output_tokens) == (0.5, 10)
    assert agent.provider_base_url == "http://here/v1"


def test_ten_steps_are_the_bound_where_no_other_is_given() -> None:
    plain = Agent("a", "openai", "m", stop_conditions=[has_text(texts=["x"])])
    bounded = Agent("a", "openai", "m", stop_conditions=[max_steps(count=3)])
    assert [one.name for one in plain.stop_conditions] == ["has_text", "max_steps"]
    assert plain.stop_conditions[1].config == {"count": 10}
    assert [one.config for one in bounded.stop_conditions] == [{"count": 3}]


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
        ({"provider": "clever"}, "there are openai, scripted"),
        ({"model": ""}, "the model must be the name of one"),
        ({"tools": [print]}, "print is a plain function: put @tool on it"),
        ({"tools": ["add"]}, "'add' is not a tool"),
        ({"tools": print}, r"tools must be a list, as tools=\[print\]"),
        ({"tools": add}, r"tools must be a list, as tools=\[add\]"),
        ({"tools": [add, add]}, "two tools have the id 'add'"),
        ({"temperature": 2.1}, "the temperature must be from 0 to 2"),
        ({"temperature": -0.1}, "the temperature must be from 0 to 2"),
        ({"temperature": "hot"}, "the temperature must be from 0 to 2, not 'hot'"),
        ({"max_output_tokens": "many"}, "max_output_tokens must be a whole number"),
        ({"max_output_tokens": 0}, "max_output_tokens must be a whole number, at least 1, not 0"),
        ({"stop_conditions": [max_steps]}, "call it, as max_steps"),
    ],
)
def test_a_value_that_cannot_be_used_is_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(DefinitionError, match=message):
        Agent(**{"id": "a", "provider": "openai", "model": "m", **fields})


def test_a_workflow_is_refused() -> None:
    with pytest.raises(DefinitionError, match="not built yet"):
        workflow(id="w")


async def test_max_steps_holds_after_that_many_calls() -> None:
    condition = max_steps(MaxStepsConfig(count=2))
    assert not await condition.holds(context(Step(step=1)))
    assert await condition.holds(context(Step(step=1), Step(step=2)))


async def test_max_tokens_holds_at_the_sum_of_those_that_are_known() -> None:
    condition = max_tokens(MaxTokensConfig(limit=10))
    steps = [Step(step=1, usage=Usage(total_tokens=6)), Step(step=2)]
    assert not await condition.holds(context(*steps))
    assert await condition.holds(context(*steps, Step(step=3, usage=Usage(total_tokens=4))))


async def test_executed_tool_holds_when_all_have_run_without_failing() -> None:
    condition = executed_tool(ExecutedToolConfig(tool_names=["a", "b"]))
    first = Step(step=1, tool_results=[ran("a"), ran("b", failed=True)])
    assert not await condition.holds(context(first))
    assert await condition.holds(context(first, Step(step=2, tool_results=[ran("b")])))


async def test_has_text_holds_when_all_texts_were_said() -> None:
    condition = has_text(HasTextConfig(texts=["one", "two"]))
    first = Step(step=1, content="one.")
    assert not await condition.holds(context(first, Step(step=2)))
    assert await condition.holds(context(first, Step(step=2, content="and two")))


async def test_custom_conditions_may_be_async_and_need_no_configuration() -> None:
    class Config(BaseModel):
        word: str = "x"

    @stop_condition
    async def never(ctx: StopConditionContext) -> bool:
        return len(ctx.steps) < 0

    @stop_condition
    def said(ctx: StopConditionContext, config: Config) -> bool:
        return any(step.content == config.word for step in ctx.steps)

    assert isinstance(never, StopCondition)
    assert isinstance(said, ConfigurableStopCondition)
    assert (never.name, never.config) == ("never", None)
    assert not await never.holds(context())
    assert said().config == {"word": "x"}
    assert await said(word="y").holds(context(Step(step=1, content="y")))


def test_a_function_with_other_parameters_is_no_stop_condition() -> None:
    def odd(ctx: StopConditionContext, count: int) -> bool:
        return False

    with pytest.raises(DefinitionError, match=r"takes \(ctx\), or"):
        stop_condition(odd)  # type: ignore[arg-type] # checkers refuse it, too


@pytest.mark.parametrize(
    "build",
    [
        lambda: max_steps(count=0),
        lambda: max_steps(limit=1),
        lambda: max_steps(MaxTokensConfig(limit=1)),  # type: ignore[arg-type]
        lambda: max_steps(MaxStepsConfig(), count=1),
        max_tokens,
        lambda: has_text(texts=[]),
    ],
)
def test_a_configuration_that_does_not_fit_is_refused(build: Any) -> None:
    with pytest.raises(DefinitionError):
        build()


async def test_a_pinned_condition_is_restored_with_its_own_configuration() -> None:
    class Config(BaseModel):
        word: str

    @stop_condition
    def said(ctx: StopConditionContext, config: Config) -> bool:
        return any(step.content == config.word for step in ctx.steps)

    @stop_condition
    def never(ctx: StopConditionContext) -> bool:
        return False

    loaded = [said(word="now"), never]
    restored = restore("said", {"word": "then"}, loaded)
    assert await restored.holds(context(Step(step=1, content="then")))
    assert restore("never", None, loaded) is never
    assert restore("max_tokens", {"limit": 5}, []).config == {"limit": 5}
    with pytest.raises(LookupError, match=r"'gone' .* is no longer part of the agent"):
        restore("gone", None, loaded)
    for name in ("said", "max_tokens"):
        with pytest.raises(LookupError, match="no longer takes the configuration"):
            restore(name, {"other": 1}, loaded)
