"""What is wrong with what a run asked people, what they answered, and what came of it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from chaos.questions import APPROVED, ASK_USER, Question, Said, asked_by, tool_of
from chaos.story import Effect, Log, Story
from chaos.work import calls_of
from polos.v1.error_pb2 import FailureReason
from polos.v1.event_pb2 import Event, Resumed, StepFinish, Suspended, WaitKind

COMPLETED = ("agent_finish", "workflow_finish")
"""The terminal events of a run that has done all that it was to do."""

EXPIRED = FailureReason.FAILURE_REASON_WAIT_EXPIRED
REJECTED = FailureReason.FAILURE_REASON_TOOL_REJECTED

Effects = Mapping[str, Sequence[Effect]]


def wrong_answers(story: Story, log: Log, effects: Effects) -> Iterator[str]:
    """Yield what is wrong with a run's waits, their answers, and the calls that these are about."""
    completed = log.events[-1].WhichOneof("payload") in COMPLETED
    yield from waits(log.events, completed=completed)
    ends = {e.resumed.step_key: e.resumed for e in log.events if e.HasField("resumed")}
    if unreadable := [key for key, end in ends.items() if not readable(end)]:
        yield f"answer: {unreadable} ended with answers that are not JSON"
        return
    for question in story.plan.questions:
        for said in question.answers:
            yield from receipts(story, question, said)
        yield from counted(story, question, ends.get(question.key), completed=completed)
    for key, arguments in calls_of(story.plan.turns).items():
        if tool_of(key) in APPROVED:
            yield from approved(key, arguments, log, effects.get(f"{story.run_id}/{key}", ()))
        elif tool_of(key) == ASK_USER:
            yield from told(key, log, ends.get(f"{key}/ask"))


def waits(events: Sequence[Event], *, completed: bool) -> Iterator[str]:
    """Yield waits that begin or end twice, end before they begin, or end too early."""
    begun: dict[str, Event] = {}
    over: set[str] = set()
    given_up: set[str] = set()
    for event in events:
        if event.HasField("workflow_retry"):  # the code that starts over begins its timers anew
            begun = {key: one for key, one in begun.items() if key not in given_up}
            over, given_up = over - given_up, set()
        if event.HasField("suspended"):
            key = event.suspended.step_key
            if key in begun:
                yield f"twice: the wait {key} begins again"
            begun[key] = event
        elif event.HasField("resumed"):
            key = event.resumed.step_key
            if key in over or key not in begun:
                yield f"twice: the wait {key} ends, and is not open"
            else:
                yield from end_of(begun[key], event)
            over.add(key)
            told = event.resumed
            if told.kind == WaitKind.WAIT_KIND_TIMER and (told.given_up or told.cancelled):
                given_up.add(key)
    if completed and begun.keys() != over:
        yield f"lost: the waits {sorted(begun.keys() - over)} are open in a run that has completed"


def end_of(begin: Event, end: Event) -> Iterator[str]:
    """Yield what is wrong with the end of a wait, beside its beginning."""
    resumed, suspended = end.resumed, begin.suspended
    if (resumed.wait_id, resumed.kind) != (begin.sequence, suspended.kind):
        yield f"answer: {suspended.step_key} has the id {begin.sequence}, and its end is {resumed}"
    if resumed.WhichOneof("outcome") in {"expired", None}:
        due = suspended.expire_time.ToNanoseconds()
        if not suspended.HasField("expire_time") or end.create_time.ToNanoseconds() < due:
            yield f"time: {suspended.step_key} ended before its time: {resumed}"


def readable(end: Resumed) -> bool:
    """Return whether the answer that ended a wait is JSON, if an answer did."""
    if not end.HasField("data_json"):
        return True
    try:
        json.loads(end.data_json)
    except ValueError:
        return False
    return True


def receipts(story: Story, question: Question, said: Said) -> Iterator[str]:
    """Yield what callers were told of an answer that it cannot be."""
    what = f"answer: {said.request_id} ({said.way})"
    reasons = set(story.refused.get(said.request_id, ()))
    if said.wrong:
        if story.accepted[said.request_id]:
            yield f"{what} was accepted"
        if wrong := reasons - {"WAIT_NOT_OPEN", "INVALID_REQUEST"}:
            yield f"{what} was refused with {sorted(wrong)}"
        return
    may = {"ALREADY_ANSWERED"}
    may |= {"WAIT_EXPIRED"} if question.expires else set()
    may |= {"WAIT_NOT_OPEN"} if story.plan.cancel is not None else set()
    if wrong := reasons - may:
        yield f"{what} was refused with {sorted(wrong)}"
    if story.accepted[said.request_id] and reasons - {"WAIT_NOT_OPEN"}:
        yield f"{what} was accepted, and the same answer was refused: {sorted(reasons)}"


def counted(
    story: Story, question: Question, end: Resumed | None, *, completed: bool
) -> Iterator[str]:
    """Yield answers that were accepted and do not count, or count and were not accepted."""
    taken = {one.request_id: one for one in question.answers if story.accepted[one.request_id]}
    if len(taken) > 1:
        yield f"answer: {question.key} took the answers {sorted(taken)}"
    if end is None:
        if taken and completed:
            yield f"answer: {question.key} took {sorted(taken)}, and never ended"
        return
    if end.WhichOneof("outcome") != "data_json":
        if taken and not (end.cancelled and not completed):
            yield f"answer: {question.key} took {sorted(taken)}, and ended with {end}"
        return
    said = taken.get(end.request_id)
    if said is None:
        yield f"answer: {question.key} took {sorted(taken)}, and ended with {end}"
    elif end.data_json != said.data_json:
        yield f"answer: {said.request_id} was {said.data_json}, and {question.key} got {end}"


def approved(
    key: str, arguments: Mapping[str, Any], log: Log, done: Sequence[Effect]
) -> Iterator[str]:
    """Yield what a tool did, or how its step ended, otherwise than a person has decided."""
    shown, end, finish = parts(key, log)
    if shown is not None and json.loads(shown.data_json)["_form"]["context"]["input"] != arguments:
        yield f"approval: {key} showed {shown.data_json}, and the model gave {arguments}"
    answered = end is not None and end.HasField("data_json")
    said = json.loads(end.data_json) if end is not None and answered else {"approved": False}
    changed = said.get("arguments", arguments)
    if said["approved"] not in {True, False} or changed.keys() != arguments.keys():
        yield f"approval: {key} took an answer that it cannot take: {said}"
        return
    if said["approved"]:
        amount = str(changed["amount"])
        if first := begun_before(key, log):
            yield f"approval: {key} began with event {first}, before it was approved"
        if wrong := [one for one in done if one.amount != amount]:
            yield f"approval: {key} ran with {wrong}, and {amount} was approved"
    elif done:
        yield f"approval: {key} ran {len(done)} times, and nobody approved it: {end}"
    if finish is None:
        return
    if end is None:
        yield f"approval: {key} ended, and nobody was asked"
        return
    wanted = None if said["approved"] else REJECTED if answered else EXPIRED
    refused = finish.failure.reason if finish.failure.reason in {REJECTED, EXPIRED} else None
    if refused != wanted:
        yield f"approval: {key} ended with {finish}, and its approval with {end}"


def parts(key: str, log: Log) -> tuple[Suspended | None, Resumed | None, StepFinish | None]:
    """Return how an approval began and ended, and how the step of its call ended."""
    wait = asked_by(key)
    shown, end, finish = None, None, None
    for event in log.events:
        if event.suspended.step_key == wait:
            shown = event.suspended
        elif event.resumed.step_key == wait:
            end = event.resumed
        elif event.step_finish.step_key == key:
            finish = event.step_finish
    return shown, end, finish


def begun_before(key: str, log: Log) -> int | None:
    """Return the sequence of a step's start, if its approval ended later."""
    started = [e.sequence for e in log.events if e.step_start.step_key == key]
    ended = [e.sequence for e in log.events if e.resumed.step_key == asked_by(key)]
    return next((one for one in started for other in ended if one < other), None)


def told(key: str, log: Log, end: Resumed | None) -> Iterator[str]:
    """Yield an answer that is not the result of the call that asked for it."""
    _, _, finish = parts(key, log)
    if finish is None:
        return
    if end is None or json.loads(finish.result_json or "null") != json.loads(end.data_json):
        yield f"answer: {key} ended with {finish}, and was answered with {end}"
