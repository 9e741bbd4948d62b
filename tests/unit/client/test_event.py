"""Events: every kind as the documented keys, and folded to text and result."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from polos.v1 import event_pb2 as pb
from polos.v1.error_pb2 import FailureReason
from polos_client.errors import RunCancelled, RunFailed
from polos_client.event import Event
from polos_client.fold import RunAccumulator, Voids
from polos_client.waits import wait_named
from tests.support.fake_service import AGENT, RUN, delta, event, finish, numbered

CALL = pb.ToolCall(id="c1", name="add", arguments_json='{"a": 1}')
ADD = {
    "tool_name": "add",
    "tool_call": {
        "id": "c1",
        "call_id": "c1",
        "type": "function",
        "function": {"name": "add", "tool_name": "add", "arguments": '{"a": 1}'},
    },
}
USAGE = pb.Usage(input_tokens=2, output_tokens=3, total_tokens=5, cache_read_input_tokens=0)
TOKENS = {
    "input_tokens": 2,
    "output_tokens": 3,
    "total_tokens": 5,
    "cache_read_input_tokens": 0,
}
LONG_CALL = pb.ToolCall(
    id="c1", name="add", long_arguments=pb.LongArguments(step_key="llm:1", call=2)
)
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
MOMENT = Timestamp(seconds=1767323045)
SECOND = Duration(seconds=1, nanos=500_000_000)
FAILURE = pb.StepFailure(
    message="boom", reason=FailureReason.FAILURE_REASON_TOOL_FAILED, retryable=True
)


def folded(payloads: list[dict[str, Any]]) -> RunAccumulator:
    accumulator = RunAccumulator(RUN)
    for one in numbered(payloads):
        accumulator.add([one])
    return accumulator


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
            "suspend_approve_ask/me@3",
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
            "resume_approve_ask/me@2",
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


@pytest.mark.parametrize(
    ("name", "wait"),
    [
        ("approve_pay/approve@17", ("pay/approve", 17)),
        ("approve_pay:2/approve@17", ("pay:2/approve", 17)),
        ("pay/approve", ("pay/approve", None)),
        ("approve_order@17", ("approve_order@17", None)),
        ("approve_pay/approve@017", ("approve_pay/approve@017", None)),
        ("approve_pay/approve@17\n", ("approve_pay/approve@17\n", None)),
        ("", ("", None)),
    ],
)
def test_the_type_of_an_event_names_its_wait(name: str, wait: tuple[str, int | None]) -> None:
    assert wait_named(name) == wait


def test_an_event_of_a_user_is_no_text_of_the_agent() -> None:
    spoofed = pb.Custom(type="text_delta", data_json='{"content": "x"}', step_key="k", attempt=1)
    waits: list[Any] = [
        {"suspended": pb.Suspended(step_key="ask", kind=pb.WAIT_KIND_SUSPEND)},
        {"resumed": pb.Resumed(step_key="ask", wait_id=2, data_json="{}")},
    ]
    accumulator = folded([delta("Hi"), *waits, {"custom": spoofed}])
    assert (accumulator.text, accumulator.sequence) == ("Hi", 4)


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


def test_the_fold_of_a_run_with_tools_is_its_result() -> None:
    bad = pb.ToolCall(id="c2", name="add", arguments_json="{no")
    run = folded(
        [
            {"step_start": pb.StepStart(step_key="llm:1", step_type="llm", attempt=1)},
            delta("Let me see. "),
            {"step_start": pb.StepStart(step_key="add", step_type="tool", tool_call=CALL)},
            {"step_start": pb.StepStart(step_key="add:2", step_type="tool", tool_call=bad)},
            {"step_finish": pb.StepFinish(step_key="add:2", step_type="tool", failure=FAILURE)},
            {"step_finish": pb.StepFinish(step_key="add", step_type="tool", result_json="3")},
            delta("It is 3.", step=2),
            {"agent_finish": finish("It is 3."), "terminal": True},
        ]
    )
    result = run.result()
    assert run.text == "Let me see. It is 3."
    assert result.result == "It is 3."
    later = {"result_schema", "tool_call_call_id"}
    assert [one.model_dump(exclude=later) for one in result.tool_results] == [
        {
            "tool_name": "add",
            "status": "failed",
            "input": "{no",
            "result": None,
            "error": "boom",
            "tool_call_id": "c2",
        },
        {
            "tool_name": "add",
            "status": "completed",
            "input": {"a": 1},
            "result": 3,
            "error": None,
            "tool_call_id": "c1",
        },
    ]


def test_a_run_that_does_not_stream_has_its_text_from_finished_steps() -> None:
    content = '{"content": "Hi", "tool_calls": []}'
    step = pb.StepFinish(step_key="llm:1", step_type="llm", result_json=content, usage=USAGE)
    nothing = pb.StepFinish(step_key="llm:2", step_type="llm", result_json='{"content": null}')
    run = folded([delta("H"), {"step_finish": step}, {"step_finish": nothing}])
    assert run.text == "Hi"
    assert run.usage.total_tokens == 5
    assert run.usage.cache_read_input_tokens == 0
    assert run.usage.cache_creation_input_tokens is None
    with pytest.raises(ValueError, match="has not ended"):
        run.result()


def test_what_a_smaller_attempt_says_is_void_even_when_it_comes_late() -> None:
    retry = {"step_retry": pb.StepRetry(step_key="llm:1", attempt=2)}
    run = folded([delta("a"), retry, delta("late", attempt=1), delta("b", attempt=2)])
    assert run.text == "b"


def test_what_stands_in_parts_is_put_together_without_what_is_void() -> None:
    def piece(content: str, call: int, attempt: int) -> dict[str, Any]:
        told = pb.ToolCallDelta(content=content, step_key="llm:1", call=call, attempt=attempt)
        return {"tool_call_delta": told}

    thought = pb.ReasoningDelta(content="Hm", step_key="llm:1", attempt=2)
    long = pb.LongAnswer(text_bytes=5, tool_calls=1)
    asked = pb.StepFinish(step_key="llm:1", step_type="llm", attempt=2, long_answer=long)
    told = pb.StepFinish(step_key="llm:2", step_type="llm", attempt=1, long_answer=long)
    run = folded(
        [
            delta("void"),
            piece("void", 2, 1),
            {"step_retry": pb.StepRetry(step_key="llm:1", attempt=2)},
            piece("late", 2, 1),
            {"reasoning_delta": thought},
            delta("Sum: ", attempt=2),
            piece("other", 1, 2),
            piece('{"a"', 2, 2),
            piece(": 1}", 2, 2),
            {"step_finish": asked},
            {"step_start": pb.StepStart(step_key="add", step_type="tool", tool_call=LONG_CALL)},
            {
                "step_finish": pb.StepFinish(
                    step_key="add", step_type="tool", result_json="3", tool_call=LONG_CALL
                )
            },
            delta("th", step=2),
            delta("ree", step=2),
            {"step_finish": told},
            {"agent_finish": pb.AgentFinish(result_step_key="llm:2"), "terminal": True},
        ]
    )
    assert run.text == "Sum: three"
    result = run.result()
    assert result.result == "three"
    assert [(one.input, one.result) for one in result.tool_results] == [({"a": 1}, 3)]


CHILD = f"{RUN}:2"


def log_of_a_child() -> list[pb.Event]:
    """Return what a child says and does under keys that its root has as well, to its end."""
    step = pb.StepFinish(step_key="add", step_type="tool", result_json="3", usage=USAGE)
    payloads: list[dict[str, Any]] = [
        {"agent_start": pb.AgentStart()},
        {"step_start": pb.StepStart(step_key="add", step_type="tool", tool_call=CALL)},
        delta("sub"),
        {"step_retry": pb.StepRetry(step_key="llm:1", attempt=2)},
        {"step_finish": step},
        {"agent_finish": finish("sub")},
    ]
    return [event(2 + n, run_id=CHILD, parent=RUN, **one) for n, one in enumerate(payloads)]


def test_a_child_adds_nothing_to_its_root() -> None:
    accumulator = RunAccumulator(RUN)
    accumulator.add(numbered([delta("root")]))
    accumulator.add(log_of_a_child())
    assert accumulator.text == "root"
    assert accumulator.tool_results == []
    assert accumulator.usage.total_tokens == 0
    assert accumulator.sequence == 7
    assert accumulator.outcome is None, "a child's end is not the log's"


def test_a_fold_is_of_the_run_that_it_was_made_for() -> None:
    accumulator = RunAccumulator(CHILD)
    accumulator.add([*numbered([delta("root")]), *log_of_a_child()])
    assert accumulator.text == ""
    assert [one.result for one in accumulator.tool_results] == [3]
    assert accumulator.usage.total_tokens == 5


def test_a_retry_voids_what_was_begun_under_the_attempt_before_with_its_descendants() -> None:
    def start(run_id: str, parent: str, key: str, attempt: int) -> pb.Event:
        made = event(1, run_id=run_id, parent=parent, agent_start=pb.AgentStart())
        made.parent_step_key, made.parent_attempt = key, attempt
        return made

    voids = Voids()
    voids.add(start("child", RUN, "ask", 1))
    voids.add(start("grandchild", "child", "ask", 1))
    voids.add(start("sibling", RUN, "other", 1))
    voids.add(event(2, run_id="sibling", step_retry=pb.StepRetry(step_key="ask", attempt=2)))
    runs = ("child", "grandchild", "sibling", RUN)
    assert not any(voids.void(run_id) for run_id in runs), "the key alone is not the step"
    voids.add(event(3, step_retry=pb.StepRetry(step_key="ask", attempt=2)))
    assert [voids.void(run_id) for run_id in runs] == [True, True, False, False]
    voids.add(start("again", RUN, "ask", 2))
    assert not voids.void("again")
    voids.add(start("late", "grandchild", "x", 1))
    assert voids.void("late")


def test_runs_that_are_their_own_ancestors_are_not_void() -> None:
    voids = Voids()
    for run_id, parent in (("self", "self"), ("one", "two"), ("two", "one"), ("orphan", "gone")):
        first = event(1, run_id=run_id, parent=parent, agent_start=pb.AgentStart())
        first.parent_attempt = 1
        voids.add(first)
    assert not any(voids.void(run_id) for run_id in ("self", "one", "two", "orphan"))


def test_an_ending_of_a_later_version_is_a_failure_that_says_so() -> None:
    with pytest.raises(RunFailed, match="does not know; update it"):
        folded([delta("x"), {"terminal": True}]).result()


def test_a_cancelled_run_keeps_its_text_and_tokens() -> None:
    with pytest.raises(RunCancelled) as caught:
        folded(
            [delta("x"), {"run_cancelled": pb.RunCancelled(usage=USAGE), "terminal": True}]
        ).result()
    assert (caught.value.text, caught.value.usage.total_tokens) == ("x", 5)


def test_the_result_of_a_workflow_is_its_value() -> None:
    finished = pb.WorkflowFinish(result_json='{"a": 1}', duration=SECOND)
    result = folded([{"workflow_finish": finished, "terminal": True}]).result()
    assert (result.result, result.duration) == ({"a": 1}, 1.5)
