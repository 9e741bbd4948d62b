"""The tree of runs that a log tells of: what stands, what each run does, and what it has used."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from polos.v1 import event_pb2 as pb
from polos.v1.run_pb2 import RunState
from polos_client.errors import RunCancelled, RunFailed
from polos_client.event import Event as ClientEvent
from polos_client.fold import RunAccumulator
from polos_service.reading.subtree import Subtree, begin_of
from polos_service.reading.tree import Tree
from polos_service.runs.frame import Encoder, decode
from polos_service.runs.lineage import Lineage, Origin, number_of
from polos_service.store import Frame, RunRecord, Slice

ROOT = "root"
RUNNING, SUSPENDED = RunState.RUN_STATE_RUNNING, RunState.RUN_STATE_SUSPENDED
COMPLETED, CANCELLED = RunState.RUN_STATE_COMPLETED, RunState.RUN_STATE_CANCELLED
FAILED, QUEUED = RunState.RUN_STATE_FAILED, RunState.RUN_STATE_QUEUED


class Log:
    """A log that is written by hand."""

    def __init__(self) -> None:
        self.frames: list[Frame] = []
        self.add(Lineage(ROOT, "top"), pb.WorkflowStart())

    def add(self, run: Lineage, payload: Any, *, terminal: bool = False) -> None:
        number = len(self.frames) + 1
        data = Encoder(run).encode(payload, sequence=number, time=number, terminal=terminal)
        self.frames.append(Frame(first=number, last=number, data=data))

    def start(self, run: Lineage, key: str, kind: str = "run") -> None:
        self.add(run, pb.StepStart(step_key=key, step_type=kind, attempt=1))

    def child(self, parent: Lineage, key: str, attempt: int = 1) -> Lineage:
        """Begin a child of a step."""
        run_id = f"{ROOT}:{len(self.frames) + 1}"
        child = Lineage(run_id, "sub", Origin(parent.run_id, key, attempt))
        self.add(child, pb.AgentStart(agent_id="sub"))
        return child

    def call(self, run: Lineage, tokens: int) -> None:
        """Call a model."""
        usage, cost = pb.Usage(total_tokens=tokens), pb.Cost(usd_micros=tokens)
        self.add(run, pb.StepFinish(step_key="llm:1", step_type="llm", usage=usage, cost=cost))

    def part(self, *, ended: bool = False) -> Slice:
        latest = len(self.frames)
        return Slice(frames=self.frames, latest=latest, ended=ended, covered=latest)

    def tree(self, state: RunState.ValueType = RUNNING, run_id: str = ROOT) -> dict[str, Any]:
        """Return the nodes of the tree, by run."""
        tree = Tree()
        subtree = Subtree(run_id)
        if run_id == ROOT:
            tree.add(decode(b"".join(one.data for one in self.frames)))
        else:
            tree.add(subtree.take(self.part(), 1 << 20))
        return {one.run_id: one for one in tree.told(record(state)).nodes}


def record(state: RunState.ValueType) -> RunRecord:
    return RunRecord(
        run_id=ROOT,
        workflow_id="top",
        state=state,
        session_id=None,
        user_id=None,
        streaming=False,
        create_time=1,
        start_time=1,
        finish_time=99 if state in (COMPLETED, FAILED, CANCELLED) else None,
        latest=0,
    )


TOP = Lineage(ROOT, "top")


@pytest.fixture
def log() -> Log:
    return Log()


def test_a_run_is_at_work_while_anything_below_it_is(log: Log) -> None:
    log.start(TOP, "a", "agent")
    a = log.child(TOP, "a")
    log.start(a, "inner", "agent")
    inner = log.child(a, "inner")
    log.add(inner, pb.Suspended(step_key="ok"))
    states = {run_id: one.state for run_id, one in log.tree().items()}
    assert states == {ROOT: RUNNING, a.run_id: SUSPENDED, inner.run_id: SUSPENDED}
    log.start(a, "tool", "tool")
    assert log.tree()[a.run_id].state == RUNNING
    assert [one.step_key for one in log.tree()[a.run_id].open_steps] == ["inner", "tool"]
    assert log.tree()[inner.run_id].open_waits[0].wait_id == len(log.frames) - 1
    log.add(inner, pb.Resumed(step_key="ok", wait_id=len(log.frames) - 1))
    assert log.tree()[inner.run_id].state == RUNNING


@pytest.mark.parametrize(
    ("root", "child"),
    [
        (QUEUED, QUEUED),
        (SUSPENDED, SUSPENDED),
        (FAILED, FAILED),
        (CANCELLED, CANCELLED),
        (COMPLETED, CANCELLED),
        (RUNNING, RUNNING),
    ],
)
def test_a_child_without_an_end_stands_as_its_root(
    log: Log, root: RunState.ValueType, child: RunState.ValueType
) -> None:
    open_one = log.child(TOP, "a")
    ended = log.child(TOP, "b")
    log.add(ended, pb.Error(message="no luck"))
    tree = log.tree(root)
    assert tree[open_one.run_id].state == child
    assert tree[open_one.run_id].HasField("finish_time") == (root in (COMPLETED, FAILED, CANCELLED))
    assert (tree[ended.run_id].state, tree[ended.run_id].error) == (FAILED, "no luck")


def test_what_a_retry_voids_is_left_out_with_all_below_it(log: Log) -> None:
    log.start(TOP, "a", "agent")
    void = log.child(TOP, "a")
    log.call(void, 100)
    log.child(void, "deeper")
    log.add(TOP, pb.StepRetry(step_key="a", attempt=2))
    again = log.child(TOP, "a", attempt=2)
    log.call(again, 7)
    tree = log.tree()
    assert [*tree] == [ROOT, again.run_id]
    assert tree[ROOT].usage.total_tokens == 7


def test_each_call_counts_once_in_each_run_above_it(log: Log) -> None:
    a, b = log.child(TOP, "a"), log.child(TOP, "b")
    inner = log.child(a, "inner")
    for run, tokens in ((a, 1), (b, 10), (inner, 100)):
        log.call(run, tokens)
    used = {one.run_id: one.usage.total_tokens for one in log.tree().values()}
    assert used == {ROOT: 111, a.run_id: 101, b.run_id: 10, inner.run_id: 100}
    usage, cost = pb.Usage(total_tokens=101), pb.Cost(usd_micros=101)
    log.add(a, pb.AgentFinish(total_steps=1, usage=usage, cost=cost))
    tree = log.tree()
    assert (tree[ROOT].usage.total_tokens, tree[ROOT].cost.usd_micros) == (111, 111)
    assert [*log.tree(run_id=a.run_id)] == [a.run_id, inner.run_id]


def test_a_run_without_model_calls_tells_no_usage(log: Log) -> None:
    child = log.child(TOP, "a")
    assert not log.tree()[child.run_id].HasField("usage")
    assert not log.tree()[ROOT].HasField("cost")


@pytest.mark.parametrize(
    ("run_id", "number"),
    [
        ("r:7", 7),
        ("r", None),
        ("r:", None),
        ("r:0", None),
        ("r:07", None),
        ("r:7:8", None),
        ("r:x", None),
        ("r:-1", None),
        ("r:٣", None),
        ("r:" + "9" * 19, None),
    ],
)
def test_the_number_of_a_child(run_id: str, number: int | None) -> None:
    assert number_of(run_id) == number
    assert begin_of(run_id) == (0 if number is None else number - 1)


@pytest.mark.parametrize("limit", [1, 100, 1 << 20])
def test_a_subtree_is_the_same_however_much_is_taken_at_once(log: Log, limit: int) -> None:
    a, b = log.child(TOP, "a"), log.child(TOP, "b")
    runs = [log.child(a, f"k{number}") for number in range(12)]  # more than are looked for
    for run in (a, b, *runs, b):
        log.add(run, pb.TextDelta(content="x" * 50, step_key="llm:1"))
    log.add(a, pb.AgentFinish())
    log.add(b, pb.TextDelta(content="late", step_key="llm:1"))
    subtree, taken = Subtree(a.run_id), []
    while not subtree.ended:
        frames = [one for one in log.frames if one.last > subtree.after]
        taken += subtree.take(replace(log.part(), frames=frames), limit)
    assert {one.run_id for one in taken} == {a.run_id, *(one.run_id for one in runs)}
    assert len(taken) == 1 + 12 + 1 + 12 + 1
    assert [one.terminal for one in taken] == [False] * (len(taken) - 1) + [True]


@pytest.mark.parametrize("own", [True, False])
def test_a_large_frame_is_taken_in_pieces(log: Log, *, own: bool) -> None:
    child = log.child(TOP, "a")
    for _ in range(30):
        log.add(child if own else TOP, pb.TextDelta(content="x" * 100, step_key="llm:1"))
    log.add(child, pb.AgentFinish())
    whole = Frame(first=1, last=len(log.frames), data=b"".join(one.data for one in log.frames))
    subtree, taken, times = Subtree(child.run_id), [], 0
    while not subtree.ended:
        times += 1
        taken += subtree.take(replace(log.part(), frames=[whole]), 500)
    assert [one.sequence for one in taken] == [2, *(range(3, 33) if own else ()), 33]
    assert times > 5 if own else times == 1  # what is not the child's costs little


def test_a_child_without_an_end_takes_its_root_s(log: Log) -> None:
    child = log.child(TOP, "a")
    log.add(TOP, pb.Error(message="the log is full"), terminal=True)
    subtree = Subtree(child.run_id)
    taken = subtree.take(log.part(ended=True), 1 << 20)
    assert [one.run_id for one in taken] == [child.run_id, ROOT]
    assert subtree.ended
    folded = RunAccumulator(child.run_id)
    folded.add(taken)
    with pytest.raises(RunFailed, match="the log is full") as failed:
        folded.result()
    assert failed.value.run_id == child.run_id
    assert not ClientEvent(taken[-1], child.run_id).is_own
    assert ClientEvent(taken[-1], child.run_id).run_id == ROOT


def test_the_result_of_a_root_is_never_that_of_a_child(log: Log) -> None:
    child = log.child(TOP, "a")
    log.add(TOP, pb.WorkflowFinish(result_json="1"), terminal=True)
    folded = RunAccumulator(child.run_id)
    folded.add(Subtree(child.run_id).take(log.part(ended=True), 1 << 20))
    with pytest.raises(RunCancelled):
        folded.result()
