"""What the chaos harness finds in runs that start others beside themselves, without a service."""

from __future__ import annotations

from dataclasses import replace

import pytest

from chaos.apart import wrong_apart
from chaos.moves import Move
from chaos.story import Log, Story
from chaos.work import Turn, Work
from polos.v1.event_pb2 import (
    AgentFinish,
    Event,
    Resumed,
    StepFinish,
    Suspended,
    WaitKind,
    WorkflowFinish,
)
from polos.v1.run_pb2 import RunState
from tests.support.chaos_plans import undisturbed

SAYS = Turn(tokens=1, burst=1, gap=0, calls=(), breaks=None, id_size=4)
WORK = Work(name="other", turns=(SAYS,), questions=())
MOVES = (
    Move(kind="await", seconds=1, expires=False, children=(WORK,)),
    Move(kind="leave", seconds=1, expires=False, children=(WORK,)),
)
PLAN = undisturbed(Work(name="parent", turns=(), questions=(), moves=MOVES))


def of(run_id: str, second: int, **payload: object) -> Event:
    event = Event(run_id=run_id, **payload)  # type: ignore[arg-type]
    event.create_time.FromSeconds(second)
    return event


def starts(key: str, run_id: str) -> Event:
    return of("r", 1, step_finish=StepFinish(step_key=key, attempt=1, started_run_id=run_id))


def told(
    *,
    first: str = "a",
    result: str = '["yes", "b"]',
    waited: int = 4,
    origins: tuple[str, ...] = ("k0", "k1"),
) -> list[str]:
    kind = WaitKind.WAIT_KIND_RUN
    parent = [
        starts("k0", first),
        of("r", 2, suspended=Suspended(step_key="e0", kind=kind)),
        of("r", waited, resumed=Resumed(step_key="e0", kind=kind)),
        starts("k1", "b"),
        of("r", 5, workflow_finish=WorkflowFinish(result_json=result)),
    ]
    ends = {"a": [of("a", 3, agent_finish=AgentFinish(result="yes"))], "b": []}
    logs = {run: Log(RunState.RUN_STATE_COMPLETED, events) for run, events in ends.items()}
    stories = [Story(PLAN, "r", done=True)]
    for run_id, key in zip("abc", origins, strict=False):
        plan = replace(PLAN, name=run_id, moves=())
        stories.append(Story(plan, run_id, origin=("r", key), done=True))
    return list(wrong_apart(stories, logs | {"r": Log(RunState.RUN_STATE_COMPLETED, parent)}))


def test_runs_that_were_started_as_planned_are_right() -> None:
    assert told() == []


@pytest.mark.parametrize(
    ("fault", "finding"),
    [
        ({"origins": ("k0",)}, "lost: step k1 tells the runs ['b'], and there are []"),
        ({"origins": ("k0", "k1", "k0")}, "twice: step k0 started the runs ['a', 'c']"),
        ({"first": "z"}, "lost: step k0 tells the runs ['z'], and there are ['a']"),
        ({"waited": 2}, "time: the wait e0 ended before the run a"),
        ({"result": '["no", "b"]'}, "apart: move 0 came to no, and the run a to yes"),
        ({"result": '["yes", "c"]'}, "apart: move 1 came to c, and the run b to b"),
    ],
)
def test_what_is_wrong_is_found(fault: dict[str, object], finding: str) -> None:
    assert f"parent (r): {finding}" in told(**fault)  # type: ignore[arg-type]
