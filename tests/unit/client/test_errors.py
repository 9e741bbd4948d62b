"""Errors of runs, caught as programs for the original SDK catch them."""

from __future__ import annotations

import pickle

import pytest

from polos_client.errors import (
    PolosError,
    RunCancelled,
    RunError,
    RunFailed,
    RunTimeout,
    StepExecutionError,
    WorkflowTimeoutError,
)
from polos_client.result import AgentResult, ToolResult, Usage


def test_a_failed_run_is_a_runtime_error() -> None:
    with pytest.raises(RuntimeError, match=r"^away$") as raised:
        raise RunFailed("away", run_id="r", reason="internal", usage=Usage())
    assert isinstance(raised.value, RunError)
    assert not isinstance(RunCancelled("x", run_id="r", reason="c", usage=Usage()), RuntimeError)


def test_a_run_that_took_too_long_is_a_workflow_timeout_error() -> None:
    error = RunTimeout(
        "run r took longer than 2 s", run_id="r", reason="t", usage=Usage(), timeout_seconds=2.0
    )
    assert isinstance(error, WorkflowTimeoutError)
    assert (error.execution_id, error.timeout_seconds, error.run_id) == ("r", 2.0, "r")
    assert str(error) == "run r took longer than 2 s"


def test_the_errors_of_the_original_sdk_are_made_as_there() -> None:
    error = WorkflowTimeoutError("r", 2)
    assert (error.execution_id, error.timeout_seconds) == ("r", 2)
    assert str(error) == "run r took longer than 2 s"
    step = StepExecutionError("boom")
    assert (step.reason, str(step)) == ("boom", "boom")
    assert pickle.loads(pickle.dumps(step)).reason == "boom"
    assert issubclass(StepExecutionError, PolosError)


def test_a_result_is_validated_from_itself_and_from_its_dump() -> None:
    failed = ToolResult(tool_name="add", status="failed", error="no", tool_call_id="c")
    result = AgentResult(agent_run_id="r", result="3", tool_results=[failed])
    assert AgentResult.model_validate(result) is result
    assert AgentResult.model_validate(result.model_dump()) == result
    assert (failed.tool_call_call_id, failed.result_schema) == ("c", None)
