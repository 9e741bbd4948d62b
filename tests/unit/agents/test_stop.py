"""Stop conditions: which one ended a run, and that user code in one can break no run."""

from __future__ import annotations

import asyncio
import sys

import pytest
from structlog.testing import capture_logs

from polos.v1.error_pb2 import FailureReason
from polos.v1.event_pb2 import FinishReason
from polos_client.define.agent import Agent
from polos_client.define.scripted import call, script, turn, usage
from polos_client.define.stop import (
    StopCondition,
    StopConditionContext,
    executed_tool,
    has_text,
    max_steps,
    max_tokens,
    stop_condition,
)
from polos_client.define.tool import tool
from polos_service.store.sqlite import SqliteStore
from tests.support.agents import played


@tool
def add(a: int, b: int) -> int:
    return a + b


@tool
def broken() -> None:
    raise ValueError


SUM = call("add", a=1, b=2)
LOOP = [turn(f"turn {n}", SUM, usage(input_tokens=10, output_tokens=1)) for n in range(1, 20)]


@stop_condition
def third(ctx: StopConditionContext) -> bool:
    last = ctx.steps[-1]
    assert last.tool_results[0].result == 3
    assert last.tool_calls[0].function.name == "add"
    return last.step == 3


@stop_condition
async def later(ctx: StopConditionContext) -> bool:
    await asyncio.sleep(0)
    return len(ctx.steps) == 2


@pytest.mark.parametrize(
    ("stops", "name", "steps"),
    [
        ([], "max_steps", 10),
        ([max_steps(count=4)], "max_steps", 4),
        ([max_tokens(limit=33)], "max_tokens", 3),
        ([has_text(texts=["turn 2", "turn"])], "has_text", 2),
        ([executed_tool(tool_names=["add"])], "executed_tool", 1),
        ([third], "third", 3),
        ([later], "later", 2),
        ([third, max_steps(count=2)], "max_steps", 2),
        ([third, max_steps(count=3)], "third", 3),
        ([max_steps(count=12)], "max_steps", 12),
    ],
)
async def test_the_result_says_which_condition_held(
    store: SqliteStore, stops: list[StopCondition], name: str, steps: int
) -> None:
    agent = Agent("a", "scripted", script(*LOOP), tools=[add], stop_conditions=stops)
    end = (await played(store, agent))[-1].agent_finish
    assert end.finish_reason == FinishReason.FINISH_REASON_STOP_CONDITION
    assert (end.stop_condition, end.total_steps) == (name, steps)
    assert end.result == f"turn {steps}"


async def test_the_tools_of_the_last_turn_have_run_before_it_stops(store: SqliteStore) -> None:
    agent = Agent("a", "scripted", script(*LOOP), tools=[add], stop_conditions=[max_steps(count=1)])
    events = await played(store, agent)
    assert [e.step_finish.step_key for e in events if e.HasField("step_finish")] == ["llm:1", "add"]


async def test_a_failed_tool_was_asked_for_all_the_same(store: SqliteStore) -> None:
    text = script(turn("Let me try.", call("broken")), "done")
    stops = [executed_tool(tool_names=["broken"])]
    agent = Agent("a", "scripted", text, tools=[broken], stop_conditions=stops)
    end = (await played(store, agent))[-1].agent_finish
    assert (end.result, end.stop_condition) == ("Let me try.", "executed_tool")


@stop_condition
def failing(ctx: StopConditionContext) -> bool:
    raise RuntimeError("sk-secret")


@stop_condition
async def cancelling(ctx: StopConditionContext) -> bool:
    raise asyncio.CancelledError


@stop_condition
def leaving(ctx: StopConditionContext) -> bool:
    sys.exit("bye")


@pytest.mark.parametrize("stop", [failing, cancelling, leaving])
async def test_a_condition_that_breaks_ends_its_run_and_nothing_else(
    store: SqliteStore, stop: StopCondition
) -> None:
    agent = Agent("a", "scripted", script(*LOOP), tools=[add], stop_conditions=[stop])
    with capture_logs():
        error = (await played(store, agent))[-1].error
    assert error.reason == FailureReason.FAILURE_REASON_INTERNAL
    assert "secret" not in error.message
    assert error.total_steps == 1
