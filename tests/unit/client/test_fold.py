"""The fold of events: to text, tools, tokens and the result of one run."""

from __future__ import annotations

from typing import Any

import pytest
from google.protobuf.duration_pb2 import Duration

from polos.v1 import event_pb2 as pb
from polos_client.errors import RunCancelled, RunFailed
from polos_client.fold import RunAccumulator, Voids
from tests.support.fake_service import RUN, delta, event, finish, numbered
from tests.support.payloads import CALL, FAILURE, LONG_CALL, USAGE

CHILD = f"{RUN}:2"


def folded(payloads: list[dict[str, Any]]) -> RunAccumulator:
    accumulator = RunAccumulator(RUN)
    for one in numbered(payloads):
        accumulator.add([one])
    return accumulator


def test_an_event_of_a_user_is_no_text_of_the_agent() -> None:
    spoofed = pb.Custom(type="text_delta", data_json='{"content": "x"}', step_key="k", attempt=1)
    waits: list[Any] = [
        {"suspended": pb.Suspended(step_key="ask", kind=pb.WAIT_KIND_SUSPEND)},
        {"resumed": pb.Resumed(step_key="ask", wait_id=2, data_json="{}")},
    ]
    accumulator = folded([delta("Hi"), *waits, {"custom": spoofed}])
    assert (accumulator.text, accumulator.sequence) == ("Hi", 4)


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
    finished = pb.WorkflowFinish(
        result_json='{"a": 1}', duration=Duration(seconds=1, nanos=500_000_000)
    )
    result = folded([{"workflow_finish": finished, "terminal": True}]).result()
    assert (result.result, result.duration) == ({"a": 1}, 1.5)
