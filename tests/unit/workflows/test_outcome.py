"""What a run ended with, as a wait for its end tells it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from polos.v1.error_pb2 import FailureReason
from polos.v1.event_pb2 import (
    AgentFinish,
    Cost,
    Error,
    Event,
    RunCancelled,
    ToolCall,
    Usage,
    WorkflowFinish,
)
from polos.v1.run_pb2 import ToolResult
from polos_client.result import AgentResult
from polos_service.errors import StepError
from polos_service.limits import OUTPUT_LIMIT
from polos_service.workflows.outcome import deleted_json, outcome_json, value_in


def event(**payload: Any) -> Event:
    return Event(run_id="run", workflow_id="w", terminal=True, **payload)


@pytest.mark.parametrize("value", [None, 0, "", [], {"a": [1.5, "ü", 2**60]}], ids=str)
def test_a_result_comes_back_as_it_was(value: Any) -> None:
    text = outcome_json(event(workflow_finish=WorkflowFinish(result_json=json.dumps(value))), [])
    told = json.loads(text)
    assert (told["run_id"], told["workflow_id"], told["outcome"]) == ("run", "w", "completed")
    assert value_in(text) == value


def test_what_a_run_used_is_told_however_it_ended() -> None:
    used = Usage(input_tokens=3, output_tokens=4, total_tokens=7)
    spent: dict[str, Any] = {"usage": used, "cost": Cost(usd_micros=1_500_000)}
    for end in (
        event(agent_finish=AgentFinish(result="Hi.", **spent)),
        event(workflow_finish=WorkflowFinish(result_json="1", **spent)),
        event(error=Error(message="no", **spent)),
        event(run_cancelled=RunCancelled(**spent)),
    ):
        told = json.loads(outcome_json(end, []))
        assert told["usage"]["total_tokens"] == 7
        assert told["cost"] == 1.5


def test_an_agents_result_has_its_tool_results() -> None:
    tool = ToolResult(
        tool_call=ToolCall(id="c", name="look", arguments_json="{}"),
        step_key="look",
        result_json='"seen"',
    )
    result = value_in(outcome_json(event(agent_finish=AgentFinish(result="Hi.")), [tool]))
    assert isinstance(result, AgentResult)
    assert (result.result, result.agent_run_id) == ("Hi.", "run")
    assert [one.result for one in result.tool_results] == ["seen"]


@pytest.mark.parametrize(
    ("text", "reason", "message"),
    [
        (
            outcome_json(event(error=Error(message="no tea")), []),
            FailureReason.FAILURE_REASON_CHILD_FAILED,
            "no tea",
        ),
        (
            outcome_json(event(run_cancelled=RunCancelled()), []),
            FailureReason.FAILURE_REASON_CHILD_CANCELLED,
            "The run run was cancelled.",
        ),
        (
            deleted_json("run"),
            FailureReason.FAILURE_REASON_CHILD_FAILED,
            "There is no run 'run', or no more.",
        ),
        (
            outcome_json(event(agent_finish=AgentFinish(result_step_key="llm:1")), []),
            FailureReason.FAILURE_REASON_CHILD_FAILED,
            f"The result exceeds {OUTPUT_LIMIT} bytes. The events of the run run have it.",
        ),
        (
            outcome_json(
                event(agent_finish=AgentFinish(result="ü" * (OUTPUT_LIMIT // 2 + 600))), []
            ),
            FailureReason.FAILURE_REASON_CHILD_FAILED,
            f"The result exceeds {OUTPUT_LIMIT} bytes. The events of the run run have it.",
        ),
    ],
    ids=["failed", "cancelled", "deleted", "long", "too large"],
)
def test_what_is_no_result_fails_the_step(
    text: str, reason: FailureReason.ValueType, message: str
) -> None:
    with pytest.raises(StepError) as raised:
        value_in(text)
    assert (raised.value.reason, raised.value.message) == (reason, message)


def test_the_numbers_of_a_result_stay_exact() -> None:
    exact = '{"price":12.10,"count":1e2}'
    for end in (
        event(workflow_finish=WorkflowFinish(result_json=exact)),
        event(agent_finish=AgentFinish(result=exact, result_is_json=True)),
    ):
        text = outcome_json(end, [])
        assert exact in text
        value = value_in(text)
        assert getattr(value, "result", value) == {"price": 12.1, "count": 100.0}


def test_the_largest_result_is_handed_on() -> None:
    largest = json.dumps("x" * (OUTPUT_LIMIT - 2))
    text = outcome_json(event(workflow_finish=WorkflowFinish(result_json=largest)), [])
    assert len(text) <= OUTPUT_LIMIT + 1024
    assert value_in(text) == json.loads(largest)
