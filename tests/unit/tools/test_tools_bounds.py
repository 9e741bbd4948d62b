"""How long a tool may take, and how often it may run."""

from __future__ import annotations

import asyncio
import threading
from dataclasses import replace

import pytest

from polos.v1.error_pb2 import FailureReason
from polos.v1.event_pb2 import ToolCall
from polos_client.define.context import WorkflowContext
from polos_client.define.tool import Tool, tool
from polos_service.errors import StepError
from polos_service.tools import local
from polos_service.tools.local import call_tool
from polos_service.tools.stint import Limit

CONTEXT = WorkflowContext(
    workflow_id="agent", execution_id="run", step_key="work", idempotency_key="run/work"
)


async def failing(made: Tool, limit: float, attempt: int = 1) -> StepError:
    call = ToolCall(id="c", name=made.id, arguments_json="{}")
    with pytest.raises(StepError) as raised:
        await call_tool({made.id: made}, call, replace(CONTEXT, attempt=attempt), Limit(limit))
    return raised.value


async def test_a_tool_that_takes_too_long_is_cancelled_and_the_model_told() -> None:
    cleaned = asyncio.Event()

    @tool
    async def work() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            cleaned.set()

    error = await failing(work, 0.05)
    assert error.reason == FailureReason.FAILURE_REASON_TOOL_TIMEOUT
    assert error.message == "The tool work took longer than 0.05 s and was cancelled."
    assert cleaned.is_set(), "it was awaited"


async def test_a_blocking_tool_that_takes_too_long_is_left_to_itself() -> None:
    free = threading.Event()

    @tool
    def work() -> None:
        free.wait(30)

    error = await failing(work, 0.05)
    free.set()
    assert error.reason == FailureReason.FAILURE_REASON_TOOL_TIMEOUT


async def test_a_tool_that_does_not_give_in_is_waited_for_within_a_bound(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(local, "TOOL_PATIENCE", 0.05)
    free = asyncio.Event()

    @tool
    async def work() -> None:
        while not free.is_set():
            try:
                await free.wait()
            except asyncio.CancelledError:
                continue

    async with asyncio.timeout(60):
        error = await failing(work, 0.05)
    free.set()
    assert error.reason == FailureReason.FAILURE_REASON_TOOL_TIMEOUT


async def test_a_tool_at_most_once_does_not_run_in_a_second_attempt() -> None:
    runs: list[int] = []

    @tool(at_most_once=True)
    def work() -> None:
        runs.append(1)

    error = await failing(work, 30, attempt=2)
    assert error.reason == FailureReason.FAILURE_REASON_TOOL_OUTCOME_UNKNOWN
    assert "unknown" in error.message
    assert runs == []
    call = ToolCall(id="c", name="work", arguments_json="{}")
    assert await call_tool({"work": work}, call, CONTEXT, Limit(30)) == "null"
    assert runs == [1]


async def test_another_tool_runs_in_its_second_attempt() -> None:
    @tool
    def work(ctx: WorkflowContext) -> int:
        return ctx.attempt

    call = ToolCall(id="c", name="work", arguments_json="{}")
    assert await call_tool({"work": work}, call, replace(CONTEXT, attempt=2), Limit(30)) == "2"
