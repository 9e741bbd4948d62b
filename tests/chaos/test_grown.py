"""What the chaos harness finds in trees of runs, without a service."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from chaos.grown import of_branch, parts_of, wrong_tree
from chaos.moves import Move
from chaos.story import Log, Story
from chaos.work import RunPlan, Turn, Work
from polos.v1.error_pb2 import FailureReason
from polos.v1.event_pb2 import (
    AgentFinish,
    AgentStart,
    Event,
    RunCancelled,
    StepFinish,
    StepRetry,
    StepStart,
    Usage,
    WorkflowFinish,
    WorkflowStart,
)
from polos.v1.run_pb2 import RunState
from tests.support.chaos_plans import undisturbed

ROOT = "r"
SAYS = Turn(tokens=1, burst=1, gap=0, calls=(), breaks=None, id_size=4)
LEAF = Work(name="leaf", turns=(SAYS,), questions=())
BATCH = Move(kind="batch", seconds=1, expires=False, children=(LEAF, LEAF))
PLAN = undisturbed(Work(name="tree", turns=(), questions=(), moves=(BATCH,)))
SEVEN, FOURTEEN = Usage(total_tokens=7), Usage(total_tokens=14)
LLM = StepFinish(step_key="llm:1", step_type="llm", attempt=1, usage=SEVEN)


def of_root(**payload: object) -> Event:
    return Event(run_id=ROOT, workflow_id="chaos-flow", **payload)  # type: ignore[arg-type]


def of_child(number: int, entry: int, **payload: object) -> Event:
    return Event(
        run_id=f"{ROOT}:{number}",
        workflow_id="chaos",
        parent_run_id=ROOT,
        parent_step_key=f"k0/{entry}",
        parent_attempt=1,
        **payload,  # type: ignore[arg-type]
    )


def begins(entry: int) -> Event:
    return of_root(step_start=StepStart(step_key=f"k0/{entry}", attempt=1))


def child(number: int, entry: int) -> list[Event]:
    finish = AgentFinish(result="yes", usage=SEVEN, spent=SEVEN)
    return [
        of_child(number, entry, agent_start=AgentStart()),
        of_child(number, entry, step_finish=LLM),
        of_child(number, entry, agent_finish=finish),
    ]


def ends(entry: int) -> Event:
    told = StepFinish(step_key=f"k0/{entry}", attempt=1, result_json='{"result": "yes"}')
    return of_root(step_finish=told)


START = of_root(workflow_start=WorkflowStart())
FINISH = WorkflowFinish(result_json='[["yes", "yes"]]', usage=FOURTEEN, spent=FOURTEEN)
END = of_root(workflow_finish=FINISH)
GOOD = (START, begins(0), *child(3, 0), ends(0), begins(1), *child(8, 1), ends(1), END)


def found(*events: Event, plan: RunPlan = PLAN) -> list[str]:
    log = Log(RunState.RUN_STATE_COMPLETED)
    for number, event in enumerate(events, 1):
        copy = Event()
        copy.CopyFrom(event)
        copy.sequence = number
        log.events.append(copy)
    story = Story(plan, run_id=ROOT)
    return list(wrong_tree(story, *parts_of(story, log)))


def test_a_tree_that_grew_as_planned_is_right() -> None:
    assert found(*GOOD) == []


def without(*left: int) -> Callable[[], list[Event]]:
    return lambda: [event for number, event in enumerate(GOOD, 1) if number not in left]


def with_end(**fields: object) -> Callable[[], list[Event]]:
    finish = WorkflowFinish()
    finish.CopyFrom(FINISH)
    finish.MergeFrom(WorkflowFinish(**fields))  # type: ignore[arg-type]
    return lambda: [*GOOD[:-1], of_root(workflow_finish=finish)]


def swapped() -> list[Event]:
    events = []
    for event in GOOD:
        copy = Event()
        copy.CopyFrom(event)
        copy.run_id = {"r:3": "r:8", "r:8": "r:3"}.get(event.run_id, event.run_id)
        events.append(copy)
    return events


FAILED = StepFinish(step_key="k0/1", attempt=1)
FAILED.failure.reason = FailureReason.FAILURE_REASON_CHILD_FAILED


@pytest.mark.parametrize(
    ("events", "what"),
    [
        (without(10), "terminal: its ends are []"),
        (without(7, 8, 9, 10, 11), "lost: step k0/1 started no child"),
        (lambda: [*GOOD[:-1], *child(13, 1), END], "twice: step k0/1 started ['r:8', 'r:13']"),
        (lambda: [*GOOD[:-1], *child(13, 2), END], "tree: nobody was to start the child r:13"),
        (lambda: [*GOOD[:-1], of_child(8, 1, step_finish=LLM), END], "and its last event is 12"),
        (lambda: [*GOOD[:9], END, *GOOD[9:-1]], "tree: its parent ends with event 10, before"),
        (
            lambda: [*GOOD[:9], ends(1), GOOD[9], END],
            "its parent's step ends with event 10, before",
        ),
        (swapped, "r:8 (leaf): tree: its first event is 3"),
        (lambda: [*GOOD[:-2], of_root(step_finish=FAILED), END], "tree: its parent's step ended"),
        (with_end(usage=SEVEN), "usage: it tells 7 tokens"),
        (with_end(spent=SEVEN), "spent: it tells 7 tokens"),
        (with_end(result_json='[["yes"]]'), "tree: move 0 came to ['yes']"),
        (
            lambda: [*GOOD[:9], of_child(8, 1, run_cancelled=RunCancelled()), *GOOD[10:]],
            "state: it ended with",
        ),
    ],
)
def test_a_tree_that_did_not_is_wrong(events: Callable[[], list[Event]], what: str) -> None:
    assert any(what in one for one in found(*events())), found(*events())


def test_the_stream_of_a_child_has_what_is_below_it_and_a_terminal_end() -> None:
    below = Event(run_id="r:5", parent_run_id="r:3", parent_step_key="k", agent_start=AgentStart())
    first, call, last = child(3, 0)
    events = of_branch("r:3", [START, begins(0), first, *child(8, 1), below, call, last, END])
    assert [event.run_id for event in events] == ["r:3", "r:5", "r:3", "r:3"]
    assert [event.terminal for event in events] == [False, False, False, True]
    assert not last.terminal


def test_a_child_that_was_given_up_may_begin_anew_and_is_void_then() -> None:
    again = of_child(13, 0, agent_start=AgentStart())
    again.parent_attempt = 2
    cancelled = of_child(3, 0, run_cancelled=RunCancelled(usage=SEVEN, spent=SEVEN))
    retry = of_root(step_retry=StepRetry(step_key="k0", attempt=2))
    events = []
    for event in (*GOOD[:4], cancelled, retry, again):
        copy = Event()
        copy.CopyFrom(event)
        if copy.HasField("parent_run_id"):
            copy.parent_step_key = "k0"
            copy.run_id = f"{ROOT}:{3 if event is not again else 7}"
        events.append(copy)
    finish = of_child(7, 0, agent_finish=AgentFinish(result="yes"))
    finish.parent_step_key, finish.parent_attempt = "k0", 2
    events[1].step_start.step_key = "k0"
    end = of_root(workflow_finish=WorkflowFinish(result_json='["x"]', spent=SEVEN))
    plan = replace(PLAN, moves=(replace(BATCH, kind="dare", children=(LEAF,)),))
    assert found(*events, finish, end, plan=plan) == []
