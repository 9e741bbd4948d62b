"""Stop conditions: the forms in which programs write them, and when they hold."""

from __future__ import annotations

from functools import partial
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
    ToolCall,
    ToolCallFunction,
    executed_tool,
    has_text,
    max_steps,
    max_tokens,
    restore,
    stop_condition,
)
from polos_client.errors import DefinitionError
from polos_client.result import ToolResult, Usage

BOUND = "POLOS_AGENT_MAX_STEPS"


def context(*steps: Step) -> StopConditionContext:
    return StopConditionContext(steps=list(steps), agent_id="a", agent_run_id="r")


def asked(name: str) -> ToolCall:
    return ToolCall(id=f"{name}-1", function=ToolCallFunction(name=name, arguments="{}"))


def stopping(*stops: Any) -> Agent:
    return Agent("a", "openai", "m", stop_conditions=stops)


def test_a_configuration_is_a_model_a_dict_or_keywords() -> None:
    forms = (max_steps(MaxStepsConfig(count=3)), max_steps({"count": 3}), max_steps(count=3))
    assert [one.config for one in forms] == [{"count": 3}] * 3


def test_max_steps_takes_its_count_as_limit_as_early_programs_say_it() -> None:
    forms = (max_steps(MaxStepsConfig(limit=3)), max_steps({"limit": 3}))  # type: ignore[call-arg]
    assert [one.config for one in forms] == [{"count": 3}] * 2


def test_max_steps_alone_is_twenty_and_an_agent_without_it_is_bounded_at_ten(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv(BOUND, raising=False)
    assert MaxStepsConfig().count == 20
    assert [one.config for one in stopping(max_steps()).stop_conditions] == [{"count": 20}]
    bounds = stopping(has_text(texts=["x"])).stop_conditions
    assert [(one.name, one.config) for one in bounds] == [
        ("has_text", {"texts": ["x"]}),
        ("max_steps", {"count": 10}),
    ]


def test_the_bound_of_the_environment_counts_when_a_run_starts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    agent = stopping()
    monkeypatch.setenv(BOUND, "7")
    assert agent.stop_conditions[0].config == {"count": 7}
    assert stopping(max_steps(count=3)).stop_conditions[0].config == {"count": 3}


@pytest.mark.parametrize("value", ["0", "-1", "1.5", "many"])
def test_a_bound_of_the_environment_that_is_none_is_refused(
    monkeypatch: pytest.MonkeyPatch, value: str
) -> None:
    monkeypatch.setenv(BOUND, value)
    with pytest.raises(DefinitionError, match=f"{BOUND} must be an integer.*{value}"):
        _ = stopping().stop_conditions


async def test_a_condition_without_configuration_is_written_with_and_without_brackets() -> None:
    @stop_condition
    def first(ctx: StopConditionContext) -> bool:
        return len(ctx.steps) == 1

    bare, called, _ = stopping(first, first()).stop_conditions
    assert bare.name == called.name == "first"
    assert await bare.holds(context(Step(step=1)))
    assert await called.holds(context(Step(step=1)))


async def test_plain_functions_are_conditions() -> None:
    def plain(ctx: StopConditionContext) -> bool:
        return len(ctx.steps) == 1

    async def later(ctx: StopConditionContext) -> bool:
        return len(ctx.steps) == 2

    def of(count: int, ctx: StopConditionContext) -> bool:
        return len(ctx.steps) == count

    stops = stopping(plain, later, lambda ctx: len(ctx.steps) == 3, partial(of, 4)).stop_conditions
    assert [one.name for one in stops] == ["plain", "later", "<lambda>", "partial", "max_steps"]
    for count, one in enumerate(stops[:4], start=1):
        steps = [Step(step=number) for number in range(1, count + 1)]
        assert await one.holds(context(*steps))
        assert not await one.holds(context())


async def test_conditions_of_one_name_are_told_apart_when_they_are_restored() -> None:
    stops = stopping(lambda _: False, lambda _: True, lambda _: False).stop_conditions
    assert [one.name for one in stops[:3]] == ["<lambda>", "<lambda>:2", "<lambda>:3"]
    restored = [restore(one.name, one.config, stops) for one in stops[:3]]
    assert [await one.holds(context()) for one in restored] == [False, True, False]


def test_one_condition_twice_keeps_its_name() -> None:
    stops = stopping(has_text(texts=["a"]), has_text(texts=["b"])).stop_conditions
    assert [one.name for one in stops] == ["has_text", "has_text", "max_steps"]


async def test_max_steps_holds_after_that_many_calls() -> None:
    condition = max_steps(MaxStepsConfig(count=2))
    assert not await condition.holds(context(Step(step=1)))
    assert await condition.holds(context(Step(step=1), Step(step=2)))


async def test_max_tokens_holds_at_the_sum_of_those_that_are_known() -> None:
    condition = max_tokens(MaxTokensConfig(limit=10))
    steps = [Step(step=1, usage=Usage(total_tokens=6)), Step(step=2)]
    assert not await condition.holds(context(*steps))
    assert await condition.holds(context(*steps, Step(step=3, usage=Usage(total_tokens=4))))


async def test_executed_tool_holds_when_all_were_asked_for_though_one_failed() -> None:
    condition = executed_tool(ExecutedToolConfig(tool_names=["a", "b"]))
    first = Step(step=1, tool_calls=[asked("a"), asked("c")])
    failed = ToolResult(tool_name="b", status="failed", error="no", tool_call_id="b-1")
    assert not await condition.holds(context(first))
    second = Step(step=2, tool_calls=[asked("b")], tool_results=[failed])
    assert await condition.holds(context(first, second))


async def test_has_text_holds_when_all_texts_stand_in_the_joined_answers() -> None:
    condition = has_text(HasTextConfig(texts=["one", "all two"]))
    first = Step(step=1, content="one for all")
    assert not await condition.holds(context(first, Step(step=2)))
    assert await condition.holds(context(first, Step(step=2), Step(step=3, content="two")))


@pytest.mark.parametrize("condition", [executed_tool(tool_names=[]), has_text(texts=[])])
async def test_a_condition_that_names_nothing_never_holds(condition: StopCondition) -> None:
    assert not await condition.holds(context(Step(step=1, content="x", tool_calls=[asked("a")])))


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
        lambda: max_steps(limit=0),
        lambda: max_steps(limit=1, count=1),
        lambda: max_steps(steps=1),
        lambda: max_steps(MaxTokensConfig(limit=1)),  # type: ignore[arg-type]
        lambda: max_steps(MaxStepsConfig(), count=1),
        lambda: max_steps({"count": 0}),
        lambda: max_steps({"count": 1}, count=1),
        max_tokens,
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


@pytest.mark.parametrize(
    ("name", "config"),
    [
        ("max_steps", {"count": 10}),
        ("max_tokens", {"limit": 5}),
        ("executed_tool", {"tool_names": ["add"]}),
        ("has_text", {"texts": ["done"]}),
    ],
)
def test_a_condition_that_0_1_0_stored_means_the_same(
    monkeypatch: pytest.MonkeyPatch, name: str, config: dict[str, Any]
) -> None:
    monkeypatch.setenv(BOUND, "7")
    for agent in (stopping(), stopping(max_steps(count=3)), stopping(has_text(texts=["x"]))):
        restored = restore(name, config, agent.stop_conditions)
        assert (restored.name, restored.config) == (name, config)
