"""Events: every kind as the documented keys."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from polos.v1 import event_pb2 as pb
from polos.v1.error_pb2 import FailureReason
from polos_client.event import Event
from tests.support.fake_service import AGENT, RUN, delta, event
from tests.support.payloads import CALL, FAILURE, LONG_CALL, USAGE

ADD = {
    "tool_name": "add",
    "tool_call": {
        "id": "c1",
        "call_id": "c1",
        "type": "function",
        "function": {"name": "add", "tool_name": "add", "arguments": '{"a": 1}'},
    },
}
TOKENS = {
    "input_tokens": 2,
    "output_tokens": 3,
    "total_tokens": 5,
    "cache_read_input_tokens": 0,
}
LONG_ADD = {
    "tool_name": "add",
    "tool_call": {
        "id": "c1",
        "call_id": "c1",
        "type": "function",
        "function": {
            "name": "add",
            "tool_name": "add",
            "long_arguments": {"step_key": "llm:1", "call": 2},
        },
    },
}
CHILD = f"{RUN}:2"
MOMENT = Timestamp(seconds=1767323045)
SECOND = Duration(seconds=1, nanos=500_000_000)


@pytest.mark.parametrize(
    ("payload", "data"),
    [
        (delta("Hi"), {"content": "Hi", "step": 1, "step_key": "llm:1", "attempt": 1}),
        (
            {
                "reasoning_delta": pb.ReasoningDelta(
                    content="Hm", step_key="llm:1", step=1, attempt=1
                )
            },
            {"content": "Hm", "step": 1, "step_key": "llm:1", "attempt": 1},
        ),
        (
            {
                "tool_call_delta": pb.ToolCallDelta(
                    content="{", step_key="llm:1", step=1, attempt=1, call=2
                )
            },
            {"content": "{", "step": 1, "step_key": "llm:1", "attempt": 1, "call": 2},
        ),
        (
            {
                "tool_call": pb.ToolCallRequested(
                    tool_call=LONG_CALL, step_key="llm:1", step=1, attempt=1
                )
            },
            {**LONG_ADD, "step": 1, "step_key": "llm:1", "attempt": 1},
        ),
        (
            {
                "step_start": pb.StepStart(
                    step_key="add", step_type="tool", attempt=1, tool_call=LONG_CALL
                )
            },
            {"step_key": "add", "step_type": "tool", "attempt": 1, **LONG_ADD},
        ),
        (
            {
                "step_finish": pb.StepFinish(
                    step_key="llm:1",
                    step_type="llm",
                    attempt=1,
                    long_answer=pb.LongAnswer(text_bytes=7, tool_calls=3),
                    finish_reason=pb.FINISH_REASON_REFUSAL,
                )
            },
            {
                "step_key": "llm:1",
                "step_type": "llm",
                "attempt": 1,
                "long_answer": {"text_bytes": 7, "tool_calls": 3},
                "finish_reason": "refusal",
            },
        ),
        (
            {"agent_finish": pb.AgentFinish(result_step_key="llm:2", total_steps=2)},
            {
                "total_steps": 2,
                "result": {"agent_run_id": RUN, "result_step_key": "llm:2", "total_steps": 2},
            },
        ),
        (
            {
                "tool_call": pb.ToolCallRequested(
                    tool_call=CALL, step_key="llm:1", step=1, attempt=1
                )
            },
            {**ADD, "step": 1, "step_key": "llm:1", "attempt": 1},
        ),
        (
            {"step_start": pb.StepStart(step_key="llm:1", step_type="llm", attempt=1)},
            {"step_key": "llm:1", "step_type": "llm", "attempt": 1},
        ),
        (
            {
                "step_start": pb.StepStart(
                    step_key="add", step_type="tool", attempt=1, tool_call=CALL
                )
            },
            {"step_key": "add", "step_type": "tool", "attempt": 1, **ADD},
        ),
        (
            {
                "step_finish": pb.StepFinish(
                    step_key="llm:1",
                    step_type="llm",
                    attempt=2,
                    duration=SECOND,
                    result_json='{"content": "Hi", "tool_calls": []}',
                    usage=USAGE,
                    cost=pb.Cost(usd_micros=25),
                    finish_reason=pb.FINISH_REASON_TOOL_CALLS,
                )
            },
            {
                "step_key": "llm:1",
                "step_type": "llm",
                "attempt": 2,
                "duration": 1.5,
                "data": {"result": {"content": "Hi", "tool_calls": []}},
                "usage": TOKENS,
                "cost": 0.000025,
                "finish_reason": "tool_calls",
            },
        ),
        (
            {
                "step_finish": pb.StepFinish(
                    step_key="add",
                    step_type="tool",
                    attempt=1,
                    failure=FAILURE,
                    tool_call=pb.ToolCall(id="c1", name="add"),
                )
            },
            {
                "step_key": "add",
                "step_type": "tool",
                "attempt": 1,
                "error": "boom",
                "reason": "tool_failed",
                "retryable": True,
                "tool_name": "add",
                "tool_call": {
                    "id": "c1",
                    "call_id": "c1",
                    "type": "function",
                    "function": {"name": "add", "tool_name": "add"},
                },
            },
        ),
        (
            {
                "step_retry": pb.StepRetry(
                    step_key="llm:1",
                    attempt=2,
                    reason=FailureReason.FAILURE_REASON_PROCESS_RESTARTED,
                    message="again",
                )
            },
            {"step_key": "llm:1", "attempt": 2, "reason": "process_restarted", "error": "again"},
        ),
        (
            {
                "agent_start": pb.AgentStart(
                    agent_id="demo",
                    provider="openai",
                    model="m",
                    tools=["add"],
                    temperature=0.0,
                    max_output_tokens=9,
                    stop_conditions=["max_steps"],
                    streaming=True,
                )
            },
            {
                "agent_id": "demo",
                "provider": "openai",
                "model": "m",
                "tools": ["add"],
                "temperature": 0.0,
                "max_output_tokens": 9,
                "stop_conditions": ["max_steps"],
                "streaming": True,
            },
        ),
        (
            {
                "agent_finish": pb.AgentFinish(
                    result="Hi",
                    usage=USAGE,
                    cost=pb.Cost(usd_micros=1_000_000),
                    finish_reason=pb.FINISH_REASON_STOP_CONDITION,
                    stop_condition="max_steps",
                    total_steps=2,
                    duration=SECOND,
                )
            },
            {
                "usage": TOKENS,
                "cost": 1.0,
                "total_steps": 2,
                "duration": 1.5,
                "result": {
                    "agent_run_id": RUN,
                    "result": "Hi",
                    "total_steps": 2,
                    "usage": TOKENS,
                    "cost": 1.0,
                    "duration": 1.5,
                    "finish_reason": "stop_condition",
                    "stop_condition": "max_steps",
                },
            },
        ),
        ({"workflow_start": pb.WorkflowStart()}, {}),
        ({"workflow_start": pb.WorkflowStart(payload_json="21")}, {"payload": 21}),
        (
            {"workflow_finish": pb.WorkflowFinish(result_json="[1]", duration=SECOND)},
            {"result": [1], "duration": 1.5},
        ),
        (
            {"workflow_start": pb.WorkflowStart(code_version="v1")},
            {"code_version": "v1"},
        ),
        (
            {"workflow_finish": pb.WorkflowFinish(result_json="{}", result_schema="shop.Order")},
            {"result": {}, "result_schema": "shop.Order"},
        ),
        (
            {"workflow_retry": pb.WorkflowRetry(attempt=2, message="It broke.")},
            {"attempt": 2, "error": "It broke."},
        ),
        (
            {"step_retry": pb.StepRetry(step_key="a", attempt=2, start_time=MOMENT)},
            {
                "step_key": "a",
                "attempt": 2,
                "reason": "unspecified",
                "error": "",
                "start_time": "2026-01-02T03:04:05+00:00",
            },
        ),
        (
            {
                "error": pb.Error(
                    message="away",
                    reason=FailureReason.FAILURE_REASON_INTERNAL,
                    usage=USAGE,
                    total_steps=1,
                    error_id="e1",
                    provider_request_id="q1",
                )
            },
            {
                "error": "away",
                "reason": "internal",
                "retryable": False,
                "usage": TOKENS,
                "total_steps": 1,
                "error_id": "e1",
                "provider_request_id": "q1",
            },
        ),
        ({"run_cancelled": pb.RunCancelled(usage=USAGE)}, {"usage": TOKENS, "total_steps": 0}),
        ({}, {}),
    ],
    ids=lambda one: next(iter(one), "unknown") if isinstance(one, dict) else None,
)
def test_data_has_the_documented_keys_and_no_others(
    payload: dict[str, Any], data: dict[str, Any]
) -> None:
    made = Event(event(3, **payload))
    assert made.event_type == next(iter(payload), "unknown")
    assert made.data == {**data, "_metadata": {"execution_id": RUN, "workflow_id": AGENT}}
    assert made.data is made.data


@pytest.mark.parametrize(
    ("payload", "kind", "data", "told"),
    [
        (
            pb.Suspended(
                step_key="ask/me",
                kind=pb.WAIT_KIND_SUSPEND,
                data_json='{"total": 9, "_metadata": 1}',
                expire_time=MOMENT,
            ),
            "suspend_ask/me",
            {"total": 9},
            {"kind": "suspend", "wait_id": 3, "expires_at": "2026-01-02T03:04:05+00:00"},
        ),
        (
            pb.Suspended(step_key="ask/me", kind=pb.WAIT_KIND_APPROVAL, data_json='{"_form": {}}'),
            "suspend_ask/me",
            {"_form": {}},
            {"kind": "approval", "wait_id": 3},
        ),
        (
            pb.Suspended(step_key="ask/me", kind=pb.WAIT_KIND_TIMER, expire_time=MOMENT),
            "suspended",
            {},
            {"kind": "timer", "wait_id": 3, "expires_at": "2026-01-02T03:04:05+00:00"},
        ),
        (
            pb.Resumed(
                step_key="ask/me",
                wait_id=2,
                kind=pb.WAIT_KIND_SUSPEND,
                data_json='{"yes": true}',
                request_id="r",
                principal="ann",
            ),
            "resume_ask/me",
            {"yes": True},
            {
                "kind": "suspend",
                "wait_id": 2,
                "outcome": "answered",
                "request_id": "r",
                "principal": "ann",
            },
        ),
        (
            pb.Resumed(
                step_key="ask/me", wait_id=2, kind=pb.WAIT_KIND_SUSPEND, data_json="[1, null]"
            ),
            "resume_ask/me",
            {"value": [1, None]},
            {"kind": "suspend", "wait_id": 2, "outcome": "answered"},
        ),
        (
            pb.Resumed(step_key="ask/me", wait_id=2, kind=pb.WAIT_KIND_APPROVAL, expired=True),
            "resume_ask/me",
            {},
            {"kind": "approval", "wait_id": 2, "outcome": "expired"},
        ),
        (
            pb.Resumed(step_key="ask/me", wait_id=2, kind=pb.WAIT_KIND_SUSPEND, cancelled=True),
            "resume_ask/me",
            {},
            {"kind": "suspend", "wait_id": 2, "outcome": "cancelled"},
        ),
        (
            pb.Resumed(step_key="ask/me", wait_id=2, kind=pb.WAIT_KIND_TIMER),
            "resumed",
            {},
            {"kind": "timer", "wait_id": 2, "outcome": "elapsed"},
        ),
        (
            pb.Custom(type="text_delta", data_json='{"a": 1}', step_key="ask/me", attempt=1),
            "text_delta",
            {"a": 1},
            {"attempt": 1},
        ),
        (pb.Custom(data_json="{", step_key="ask/me"), "custom", {"value": "{"}, {"attempt": 0}),
    ],
    ids=lambda one: type(one).__name__ if isinstance(one, Message) else None,
)
def test_waits_and_events_of_users_have_their_own_types_and_data_as_given(
    payload: Message, kind: str, data: dict[str, Any], told: dict[str, Any]
) -> None:
    told_as: dict[str, Any] = {type(payload).__name__.lower(): payload}
    made = Event(event(3, **told_as))
    assert made.event_type == kind
    metadata = {"execution_id": RUN, "workflow_id": AGENT, "step_key": "ask/me", **told}
    assert made.data == {**data, "_metadata": metadata}


def test_an_event_of_a_child_is_in_its_root_s_log_and_names_its_own_run() -> None:
    proto = event(3, run_id=CHILD, parent=RUN)
    proto.workflow_id = "sub"
    made = Event(proto, RUN, AGENT)
    assert made.id == f"{RUN}:3"
    assert made.sequence_id == 3
    assert made.topic == f"workflow/{AGENT}/{RUN}"
    assert made.data["_metadata"] == {"execution_id": CHILD, "workflow_id": "sub"}
    assert made.created_at == datetime(2026, 1, 2, 3, 4, 5, 500_000, tzinfo=UTC)


def test_an_enum_value_of_a_later_version_is_unknown() -> None:
    error: Any = pb.Error(message="away")
    error.reason = 999
    assert Event(event(1, error=error)).data["reason"] == "unknown"


def test_large_integers_and_kinds_of_numbers_survive() -> None:
    made = pb.StepFinish(step_key="add", step_type="tool", result_json="[21, 9007199254740993]")
    assert Event(event(1, step_finish=made)).data["data"]["result"] == [21, 9007199254740993]
