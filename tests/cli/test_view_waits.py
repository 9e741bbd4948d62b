"""What the command shows of waits, retries and a user's own events."""

from __future__ import annotations

import io
import re
from typing import Any

import pytest
from rich.console import Console

from polos.v1 import event_pb2 as pb
from polos.v1.run_pb2 import Wait
from polos_client.event import Event
from polos_service.cli.attending import OpenWaits
from polos_service.cli.history import History
from polos_service.cli.output import PlainText, exit_code
from polos_service.cli.service import Way
from polos_service.cli.view import View
from polos_service.cli.waits import how_to_answer, question, wait_of
from tests.cli.flows import SHOWN
from tests.support.fake_service import AGENT, RUN, event

TIMER, SUSPEND, APPROVAL = pb.WAIT_KIND_TIMER, pb.WAIT_KIND_SUSPEND, pb.WAIT_KIND_APPROVAL


def log(*payloads: dict[str, Any]) -> list[Event]:
    """Return the log of a root run."""
    return [Event(event(number, **one), RUN, AGENT) for number, one in enumerate(payloads, 1)]


def suspended(
    key: str, kind: pb.WaitKind.ValueType, data: str = "", until: str = ""
) -> dict[str, Any]:
    told = pb.Suspended(step_key=key, kind=kind, data_json=data)
    if until:
        told.expire_time.FromJsonString(until)
    return {"suspended": told}


def resumed(key: str, wait_id: int, kind: pb.WaitKind.ValueType, **more: Any) -> dict[str, Any]:
    return {"resumed": pb.Resumed(step_key=key, wait_id=wait_id, kind=kind, **more)}


def shown(events: list[Event]) -> list[str]:
    """Return the lines that a console gets which is not a terminal."""
    console = Console(file=io.StringIO(), width=200)
    with View(console) as view:
        for one in events:
            view.show(one)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue().splitlines()


def happened(events: list[Event]) -> History:
    history = History()
    for one in events:
        history.add(one)
    return history


def test_each_end_of_a_wait_is_told() -> None:
    yes = '{"approved": true, "arguments": {"amount": 50}, "feedback": "less"}'
    events = log(
        suspended("pay/approve", APPROVAL, SHOWN),
        suspended("ask", SUSPEND, '{"_form": {"title": "Sure?", "description": "Really"}}'),
        suspended("race", SUSPEND, "[1]"),
        resumed("pay/approve", 1, APPROVAL, data_json=yes, principal="ann"),
        resumed("ask", 2, SUSPEND, expired=True),
        resumed("race", 3, SUSPEND, cancelled=True),
        resumed("gone", 99, TIMER),
    )
    assert shown(events) == [
        '⏸ pay/approve · waits for approval: pay({"amount": 100})',
        "⏸ ask · waits for an answer: Sure?: Really",
        "⏸ race · waits for an answer",
        '▶ pay/approve after 0.0 s · approved by ann with changed arguments {"amount": 50}: less',
        "▶ ask after 0.0 s · nobody answered in time",
        "▶ race after 0.0 s · no longer waited for",
        "▶ gone · the time has come",
    ]
    waits = happened(events[:-1]).as_dict()["waits"]
    assert [one["outcome"] for one in waits] == ["answered", "expired", "cancelled"]


def test_open_waits_are_named_with_their_age_in_the_region() -> None:
    view = View(Console(file=io.StringIO(), width=200))
    (began,) = log(suspended("ask", SUSPEND))
    view.show(began)
    assert re.fullmatch(r"ask \d+ d", str(view._status().text))
    (_, over) = log(suspended("ask", SUSPEND), resumed("ask", 1, SUSPEND, data_json="1"))
    view.show(over)
    assert str(view._status().text) == "waiting"


def test_an_event_of_a_user_is_shown_whatever_its_type_and_does_not_steer() -> None:
    tell = {"step_start": pb.StepStart(step_key="tell", step_type="event", attempt=1)}
    named = pb.Custom(type="agent_finish\x1b[2J", data_json='{"a": 1}', step_key="tell", attempt=1)
    told = {"step_finish": pb.StepFinish(step_key="tell", step_type="event", result_json="null")}
    retry = {"workflow_retry": pb.WorkflowRetry(attempt=2, message="boom")}
    events = log(tell, {"custom": named}, told, retry)
    assert shown(events) == [
        '• agent_finish[2J {"a": 1}',
        "↻ the workflow starts over, attempt 2: boom",
    ]
    ended = Event(event(1, custom=named, terminal=True), RUN, AGENT)
    assert exit_code(ended) == 3


def test_events_of_a_void_attempt_are_not_in_the_history() -> None:
    start = {"step_start": pb.StepStart(step_key="s", step_type="run", attempt=1)}
    first = pb.Custom(type="first", data_json="1", step_key="s", attempt=1)
    other = pb.Custom(type="other", data_json="2", step_key="t", attempt=1)
    retry = {"step_retry": pb.StepRetry(step_key="s", attempt=2, message="away")}
    history = happened(log(start, {"custom": first}, {"custom": other}, retry))
    assert [one["event_type"] for one in history.events] == ["other"]
    assert list(history.lines.values()) == ["step s: attempt 2, after: away", "event other 2"]
    failed = pb.StepFinish(step_key="s", step_type="run", failure=pb.StepFailure(message="no"))
    history.add(Event(event(5, step_finish=failed), RUN, AGENT))
    assert history.lines[1] == "step s (attempt 2) -> failed: no"
    assert history.as_dict()["steps"][0]["error"] == "no"


def test_a_child_s_steps_are_not_the_root_s() -> None:
    start = {"step_start": pb.StepStart(step_key="s", step_type="run", attempt=1)}
    child = Event(event(1, run_id=f"{RUN}:1", parent=RUN, **start), RUN, AGENT)
    assert happened([child]).as_dict() == {}


def test_of_open_waits_timers_cannot_be_answered_and_the_end_closes_all() -> None:
    waits = OpenWaits()
    events = log(suspended("nap", TIMER), suspended("a", SUSPEND), suspended("b", APPROVAL))
    for one in events:
        waits.add(one)
    assert [one.step_key for one in waits] == ["a", "b"]
    waits.add(Event(event(4, **resumed("a", 2, SUSPEND, data_json="1")), RUN, AGENT))
    assert [one.step_key for one in waits] == ["b"]
    waits.add(Event(event(5, run_cancelled=pb.RunCancelled(), terminal=True), RUN, AGENT))
    assert list(waits) == []


@pytest.mark.parametrize(
    ("data", "asked"),
    [
        ("", ""),
        ("not JSON", ""),
        ('{"_form": [1]}', ""),
        ('{"_form": {"title": 5}}', ""),
        ('{"_form": {"description": "Why?"}}', "Why?"),
        ('{"total": 3, "_source": "x"}', '{"total": 3}'),
    ],
)
def test_a_question_is_found_in_whatever_a_workflow_shows(data: str, asked: str) -> None:
    (began,) = log(suspended("ask", SUSPEND, data))
    assert question(wait_of(began.proto)) == asked


def test_a_wait_of_a_later_version_is_told() -> None:
    (began,) = log(suspended("new", pb.WaitKind.ValueType(77), "{}"))
    assert shown([began]) == ["⏸ new · waits for an answer"]
    assert happened([began]).as_dict()["waits"][0]["kind"] == "unknown"


def test_a_pipe_gets_the_result_of_a_workflow_as_json_and_nothing_of_a_failed_one(
    capsys: pytest.CaptureFixture[str],
) -> None:
    done = event(1, workflow_finish=pb.WorkflowFinish(result_json='{"a":1.50}'), terminal=True)
    failed = event(1, error=pb.Error(message="boom"), terminal=True)
    with PlainText() as output:
        output.show(Event(done, RUN, AGENT))
        output.show(Event(failed, RUN, AGENT))
    assert capsys.readouterr() == ('{"a":1.50}\n', "Error: boom\n")


@pytest.mark.parametrize(
    ("key", "named"), [("a b", "'a b'"), ("-x", "--wait-id 7"), ("\x1b[2J", "--wait-id 7")]
)
def test_how_to_answer_names_a_wait_so_that_it_can_be_typed(key: str, named: str) -> None:
    wait = Wait(run_id="r", step_key=key, wait_id=7, kind=SUSPEND)
    assert how_to_answer(wait, Way()) == f"Answer with: polos runs resume r {named} --data JSON"


def test_a_terminal_breaks_lines_between_words_and_tells_of_a_lost_connection() -> None:
    console = Console(file=io.StringIO(), width=24, force_terminal=True, color_system=None)
    say = pb.Custom(type="say", data_json='"one two three four five"')
    view = View(console)
    view.show(Event(event(1, custom=say), RUN, AGENT))
    began: dict[str, Any] = {"parent_step_key": "c", "parent_attempt": 1}
    view.show(Event(event(2, run_id="child", parent=RUN, custom=say, **began), RUN, AGENT))
    assert isinstance(console.file, io.StringIO)
    assert [line.rstrip() for line in console.file.getvalue().splitlines()] == [
        *('• say "one two three', 'four five"'),
        *('│ c · • say "one two', '│ three four five"'),
    ]
    view.lost(12.3)
    assert str(view._status().text) == "Connection lost, trying again (12 s)"
    view.lost(None)
    assert str(view._status().text) == "waiting"


def test_a_long_pause_before_the_next_attempt_is_told() -> None:
    retry = pb.StepRetry(step_key="s", attempt=2, message="boom")
    retry.start_time.FromJsonString("2026-01-02T03:04:35Z")
    (soon,) = log({"step_retry": retry})
    assert shown([soon]) == ["↻ s starts over in 29.5 s: boom"]
