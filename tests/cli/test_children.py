"""What the command shows of a run whose steps have begun other runs."""

from __future__ import annotations

import io
from typing import Any

import pytest
from rich.console import Console

from polos.v1 import event_pb2 as pb
from polos.v1.error_pb2 import FailureReason
from polos_client.event import Event
from polos_service.cli.output import JsonLines, PlainText
from polos_service.cli.view import BAR, GENERATIONS, STEPS, View
from tests.support.fake_service import AGENT, RUN, delta, event, finish

CHILD, GRANDCHILD = f"{RUN}:3", f"{RUN}:9"
CALL = pb.ToolCall(id="c", name="add", arguments_json='{"a": 1}')
START = {"agent_start": pb.AgentStart(agent_id="sub", provider="scripted", model="script")}


def say(content: str) -> dict[str, pb.StepFinish]:
    result = f'{{"content": "{content}", "tool_calls": []}}'
    return {"step_finish": pb.StepFinish(step_key="llm:1", step_type="llm", result_json=result)}


def log(*payloads: tuple[str, str, dict[str, Any]]) -> list[Event]:
    """Return a log of payloads, each with its run and the run's parent; empty: the root."""
    events = []
    for sequence, (run_id, parent, payload) in enumerate(payloads, 1):
        proto = event(sequence, run_id=run_id, parent=parent or None, **payload)
        if parent:
            proto.workflow_id, proto.parent_step_key, proto.parent_attempt = "sub", "ask", 1
        events.append(Event(proto, RUN, AGENT))
    return events


FAILED = pb.Error(message="no luck", reason=FailureReason.FAILURE_REASON_TOOL_FAILED)
LOG = log(
    (RUN, "", {"agent_start": pb.AgentStart(agent_id="a", provider="scripted", model="script")}),
    (RUN, "", {"step_start": pb.StepStart(step_key="ask", step_type="agent", attempt=1)}),
    (CHILD, RUN, START),
    (CHILD, RUN, {"step_start": pb.StepStart(step_key="llm:1", step_type="llm", attempt=1)}),
    (CHILD, RUN, delta("Two\\nlines")),
    (CHILD, RUN, say("Two\\nlines")),
    (CHILD, RUN, {"step_start": pb.StepStart(step_key="add", step_type="tool", tool_call=CALL)}),
    (CHILD, RUN, {"step_finish": pb.StepFinish(step_key="add", step_type="tool", tool_call=CALL)}),
    (GRANDCHILD, CHILD, {"workflow_start": pb.WorkflowStart()}),
    (GRANDCHILD, CHILD, {"error": FAILED}),
    (CHILD, RUN, {"agent_finish": finish("Two\\nlines")}),
    (RUN, "", {"step_finish": pb.StepFinish(step_key="ask", step_type="agent", result_json="1")}),
    (RUN, "", say("The root's own.")),
    (RUN, "", {"agent_finish": finish("The root's own."), "terminal": True}),
)


def shown(events: list[Event]) -> list[str]:
    """Return the lines that a console gets which is not a terminal."""
    console = Console(file=io.StringIO(), width=200)
    with View(console) as view:
        for one in events:
            view.show(one)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue().splitlines()


def test_strange_parents_and_thousands_of_generations_end() -> None:
    parents = [("a", "b"), ("b", "a"), ("c", "c"), ("d", "gone"), ("g0", RUN)]
    parents += [(f"g{n}", f"g{n - 1}") for n in range(1, 2000)]
    lines = shown(log(*((run_id, parent, START) for run_id, parent in parents)))
    assert len(lines) == len(parents)
    assert max(line.count(BAR) for line in lines) == GENERATIONS


def test_of_many_steps_at_once_the_longest_are_named() -> None:
    start = {"step_start": pb.StepStart(step_key="t", step_type="tool", attempt=1)}
    view = View(Console(file=io.StringIO()))
    for one in log(*((f"c{number}", RUN, start) for number in range(1000))):
        view.show(one)
    told = str(view._status().text)
    assert told.startswith("ask sub t ")
    assert told.endswith(f", {1000 - STEPS} more")
    assert told.count(",") == STEPS


def test_a_child_stands_apart_from_its_root() -> None:
    assert shown(LOG) == [
        "a · scripted · script",
        "│ ask · sub · scripted · script",
        "│ ask · Two",
        "│ lines",
        "│ ask · ✓ llm:1 · 0.00 s",
        '│ ask · → add({"a": 1})',
        "│ ask · ✓ add · 0.00 s · null",
        "│ │ ask · sub",
        "│ │ ask · ✗ no luck",
        "│ │ ask · ended",
        "│ ask · ended · 1 model call · 5 tokens in, 4 out · $0.001500 · 1.50 s",
        "✓ ask · 0.00 s · 1",
        "The root's own.",
        "✓ llm:1 · 0.00 s",
        f"done · 1 model call · 5 tokens in, 4 out · $0.001500 · 1.50 s · run {RUN}",
    ]


def test_nothing_of_a_void_child_is_shown() -> None:
    retry = {"step_retry": pb.StepRetry(step_key="ask", attempt=2, message="away")}
    late = {"step_finish": pb.StepFinish(step_key="add", step_type="tool", tool_call=CALL)}
    lines = shown(
        [*LOG[:4], *log((RUN, "", retry), (CHILD, RUN, late), (GRANDCHILD, CHILD, START))]
    )
    assert lines == [
        "a · scripted · script",
        "│ ask · sub · scripted · script",
        "↻ ask starts over: away",
    ]


def test_what_a_child_left_unfinished_goes_on_no_longer() -> None:
    view = View(Console(file=io.StringIO(), width=200))
    for one in log(
        (CHILD, RUN, START),
        (CHILD, RUN, {"step_start": pb.StepStart(step_key="llm:1", step_type="llm", attempt=1)}),
    ):
        view.show(one)
    assert "ask sub llm:1" in str(view._status().text)
    for one in log((CHILD, RUN, {"error": FAILED})):
        view.show(one)
    assert str(view._status().text) == "waiting"


def test_a_pipe_gets_the_root_s_text_alone(capsys: pytest.CaptureFixture[str]) -> None:
    with PlainText() as output:
        for one in LOG:
            output.show(one)
    assert capsys.readouterr().out == "The root's own.\n"


LONG = pb.StepFinish(step_key="llm:1", step_type="llm", attempt=2, long_answer=pb.LongAnswer())
LONG_CALL = pb.ToolCall(id="c", name="add", long_arguments=pb.LongArguments(step_key="llm:1"))
LONG_LOG = log(
    (RUN, "", delta("void")),
    (RUN, "", {"step_retry": pb.StepRetry(step_key="llm:1", attempt=2, message="away")}),
    (CHILD, RUN, delta("The child's ")),
    (RUN, "", delta("The root's ", attempt=2)),
    (CHILD, RUN, delta("own.")),
    (CHILD, RUN, {"step_finish": LONG}),
    (RUN, "", {"reasoning_delta": pb.ReasoningDelta(content="Hm", step_key="llm:1")}),
    (RUN, "", delta("own.", attempt=2)),
    (RUN, "", {"step_finish": LONG}),
    (RUN, "", {"step_start": pb.StepStart(step_key="add", tool_call=LONG_CALL)}),
)


def test_an_answer_that_exceeds_an_event_is_shown_when_it_has_ended(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with PlainText() as output:
        for one in LONG_LOG:
            output.show(one)
    assert capsys.readouterr().out == "The root's own.\n"
    lines = shown(LONG_LOG)
    assert [line for line in lines if "own." in line] == [
        "│ ask · The child's own.",
        "The root's own.",
    ]
    assert lines[-1] == "→ add(…)"


def test_a_refusal_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    finish = pb.AgentFinish(result="No.", finish_reason=pb.FINISH_REASON_REFUSAL)
    with PlainText() as output:
        for one in log((RUN, "", {"agent_finish": finish})):
            one.proto.terminal = True
            output.show(one)
    assert "refused to answer" in capsys.readouterr().err


def test_json_names_the_run_of_each_event_and_its_parent(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with JsonLines() as output:
        for one in LOG:
            output.show(one)
    lines = capsys.readouterr().out.splitlines()
    assert '"parent_run_id"' not in lines[0]
    assert f'"run_id": "{CHILD}", "parent_run_id": "{RUN}"' in lines[2]
    assert f'"run_id": "{GRANDCHILD}", "parent_run_id": "{CHILD}"' in lines[8]
