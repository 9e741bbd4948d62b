"""What the chaos harness finds in waits, answers and approvals, without a service."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from chaos.answered import wrong_answers
from chaos.questions import Question, Said
from chaos.story import Effect, Log, Story
from chaos.work import Turn, Work
from polos.v1.error_pb2 import FailureReason
from polos.v1.event_pb2 import (
    AgentFinish,
    Event,
    Resumed,
    StepFinish,
    StepStart,
    Suspended,
    WaitKind,
)
from polos.v1.run_pb2 import RunState
from tests.support.chaos_plans import undisturbed

APPROVAL = WaitKind.WAIT_KIND_APPROVAL
KEY = "pay/approve"
RUN = "r"
YES = Said(way="racing", request_id="yes", data_json='{"approved": true}', delay=0, times=1)
NO = Said(way="racing", request_id="no", data_json='{"approved": false}', delay=0, times=1)
STRAY = replace(YES, way="misdirected", request_id="stray")
SHOWN = json.dumps({"_form": {"context": {"input": {"amount": 100}}}})
PAYS = Turn(tokens=1, burst=1, gap=0, calls=("pay",), breaks=None, id_size=4)
ASKS = Question(key=KEY, expires=False, early=False, answers=(YES, NO, STRAY))
PLAN = undisturbed(Work(name="1-0-0", turns=(PAYS,), questions=(ASKS,)))

ASKED = Event(suspended=Suspended(step_key=KEY, kind=APPROVAL, data_json=SHOWN))
BEGUN = Event(step_start=StepStart(step_key="pay", step_type="tool", attempt=1))
DONE = Event(step_finish=StepFinish(step_key="pay", attempt=1, result_json='"x"'))
END = Event(agent_finish=AgentFinish())
EFFECT = Effect(1, "x", "100")


def ended(said: Said, wait_id: int = 1) -> Event:
    return Event(
        resumed=Resumed(
            step_key=KEY,
            wait_id=wait_id,
            kind=APPROVAL,
            data_json=said.data_json,
            request_id=said.request_id,
        )
    )


def found(story: Story, *events: Event, effects: tuple[Effect, ...] = (EFFECT,)) -> list[str]:
    log = Log(RunState.RUN_STATE_COMPLETED)
    for number, event in enumerate(events, 1):
        copy = Event(sequence=number)
        copy.MergeFrom(event)
        log.events.append(copy)
    return list(wrong_answers(story, log, {f"{RUN}/pay": effects}))


def told(*accepted: str, **refused: str) -> Story:
    story = Story(PLAN, run_id=RUN)
    story.accepted.update(accepted)
    for request_id, reason in refused.items():
        story.refused[request_id].append(reason)
    return story


def test_an_approved_call_is_right() -> None:
    story = told("yes", no="ALREADY_ANSWERED", stray="WAIT_NOT_OPEN")
    assert found(story, ASKED, ended(YES), BEGUN, DONE, END) == []


def test_a_rejected_call_is_right() -> None:
    reason = FailureReason.FAILURE_REASON_TOOL_REJECTED
    rejected = Event(step_finish=StepFinish(step_key="pay", attempt=1))
    rejected.step_finish.failure.reason = reason
    events = (ASKED, ended(NO), BEGUN, rejected, END)
    assert found(told("no", yes="ALREADY_ANSWERED"), *events, effects=()) == []
    (wrong,) = found(told("no"), *events)
    assert "nobody approved it" in wrong


@pytest.mark.parametrize(
    ("story", "events", "what"),
    [
        (told("yes", "no"), (ASKED, ended(YES), BEGUN, DONE, END), "took the answers"),
        (told("yes", "stray"), (ASKED, ended(YES), BEGUN, DONE, END), "(misdirected) was accepted"),
        (told("yes", yes="ALREADY_ANSWERED"), (ASKED, ended(YES), DONE, END), "was refused"),
        (told("yes", no="WAIT_EXPIRED"), (ASKED, ended(YES), DONE, END), "was refused with"),
        (told(), (ASKED, ended(YES), BEGUN, DONE, END), "took [], and ended with"),
        (told("yes"), (ASKED, BEGUN, DONE, END), "never ended"),
        (told("yes"), (ASKED, ASKED, ended(YES), BEGUN, DONE, END), "begins again"),
        (told("yes"), (ASKED, ended(YES, 9), BEGUN, DONE, END), "has the id 1"),
        (told("yes"), (ASKED, BEGUN, ended(YES), DONE, END), "before it was approved"),
        (told(), (BEGUN, DONE, END), "nobody was asked"),
    ],
)
def test_what_must_not_be_is_found(story: Story, events: tuple[Event, ...], what: str) -> None:
    assert any(what in one for one in found(story, *events))


def test_a_call_with_other_arguments_is_found() -> None:
    events = (ASKED, ended(YES), BEGUN, DONE, END)
    (wrong,) = found(told("yes"), *events, effects=(replace(EFFECT, amount="1"),))
    assert "100 was approved" in wrong


@pytest.mark.parametrize(
    "answer",
    [
        {"approved": "maybe"},
        {"approved": True, "arguments": {"nothing": 1}},
        {"approved": False, "arguments": {}},
    ],
)
def test_an_answer_that_cannot_be_taken_is_found(answer: dict[str, object]) -> None:
    said = replace(YES, data_json=json.dumps(answer))
    wrong = found(told("yes"), ASKED, ended(said), BEGUN, DONE, END)
    assert any("took an answer that it cannot take" in one for one in wrong)
