"""The tree of runs that one log tells of: who works, who waits for what, and what it costs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from polos.v1.event_pb2 import Event, StepFinish
from polos.v1.run_pb2 import OpenStep, OpenWait, RunNode, RunState, RunTree
from polos_service.errors import text
from polos_service.runs.journal import ENDS
from polos_service.runs.lineage import Lineage, Origin
from polos_service.runs.totals import MODEL_CALL, Sum, call_of
from polos_service.store import RunRecord

NODES = 1000
"""Runs of a tree that are returned at most."""

TREE_BYTES = 1024 * 1024
"""Bytes that they have at most."""

OPEN = 20
"""Open steps, and open waits, of a run that are returned at most."""

ERROR = 512
"""Characters of the message of a failed run that are returned at most."""

RUNNING, SUSPENDED = RunState.RUN_STATE_RUNNING, RunState.RUN_STATE_SUSPENDED
COMPLETED, CANCELLED = RunState.RUN_STATE_COMPLETED, RunState.RUN_STATE_CANCELLED

STATES = {
    "agent_finish": RunState.RUN_STATE_COMPLETED,
    "workflow_finish": RunState.RUN_STATE_COMPLETED,
    "error": RunState.RUN_STATE_FAILED,
    "run_cancelled": RunState.RUN_STATE_CANCELLED,
}
"""The state in which each event of ENDS leaves its run."""

KINDS = {"agent_start": "agent", "workflow_start": "workflow"}
"""The kind of a run, by its first event."""


@dataclass(slots=True)
class Member:
    """One run of a tree, as far as the log tells of it.

    Attributes:
        lineage: the run, and what began it.
        kind: what it is, as `RunNode.kind`.
        streaming: whether its start says that its text is in the log.
        create_time: when it began.
        latest: sequence of its newest event.
        end: the event that ended it; None if it has not ended.
        used: what its own model calls that have finished add up to.
        steps: those that have begun and not finished, by key.
        waits: the open ones, by id.

    """

    lineage: Lineage
    kind: str
    streaming: bool
    create_time: Any
    latest: int = 0
    end: Event | None = None
    used: Sum = field(default_factory=Sum)
    steps: dict[str, OpenStep] = field(default_factory=dict)
    waits: dict[int, OpenWait] = field(default_factory=dict)

    def count(self, finish: StepFinish) -> None:
        """Add a finished step, if it is a model call that stands."""
        if finish.step_type == MODEL_CALL and not finish.HasField("failure"):
            self.used.add(call_of(finish))

    @property
    def origin(self) -> Origin | None:
        """What began it; None for the root."""
        return self.lineage.origin


class Tree:
    """Folds the events of a run and of the runs below it.

    Attributes:
        members: all of them, in the order in which they began, those included that a retry voids.

    """

    def __init__(self) -> None:
        self.members: dict[str, Member] = {}
        self._attempts: dict[tuple[str, str], int] = {}

    def add(self, events: Sequence[Event]) -> None:
        """Take the next events."""
        for event in events:
            member = self.members.get(event.run_id)
            if member is None:
                member = self.members[event.run_id] = begun(event)
            member.latest = event.sequence
            kind = event.WhichOneof("payload")
            match kind:
                case "text_delta":
                    continue
                case "step_start":
                    start = event.step_start
                    member.steps[start.step_key] = OpenStep(
                        step_key=start.step_key,
                        step_type=start.step_type,
                        start_time=event.create_time,
                    )
                case "step_retry":
                    retry = event.step_retry
                    self._attempts[event.run_id, retry.step_key] = retry.attempt
                case "step_finish":
                    member.steps.pop(event.step_finish.step_key, None)
                    member.count(event.step_finish)
                case "suspended":
                    member.waits[event.sequence] = waiting(event)
                case "resumed":
                    member.waits.pop(event.resumed.wait_id, None)
                case _ if kind in ENDS:
                    member.end = Event()
                    member.end.CopyFrom(event)
                    member.steps.clear()
                    member.waits.clear()

    def standing(self) -> list[Member]:
        """Return the runs that no retry voids, in the order in which they began."""
        found: dict[str, Member] = {}
        for run_id, member in self.members.items():
            origin = member.origin
            if origin is None or not found:
                found[run_id] = member
            elif origin.run_id in found:
                attempt = self._attempts.get((origin.run_id, origin.step_key), 1)
                if origin.attempt >= attempt:
                    found[run_id] = member
        return list(found.values())

    def told(self, root: RunRecord) -> RunTree:
        """Return the tree as a message.

        Args:
            root: the record of the root run, whose state a run shares that has not ended.

        """
        members = self.standing()
        totals, idle = summed(members), resting(members)
        tree = RunTree()
        if not members:  # nothing of the root has begun
            node = tree.nodes.add(run_id=root.run_id, workflow_id=root.workflow_id)
            node.state = root.state
            node.create_time.FromNanoseconds(root.create_time)
        size = 0
        for member in members[:NODES]:
            run_id = member.lineage.run_id
            node = node_of(member, totals[run_id])
            node.state = state_of(member, root, idle=idle[run_id])
            if member.origin is None:
                node.create_time.FromNanoseconds(root.create_time)
            if member.end is None and root.finish_time is not None:
                node.finish_time.FromNanoseconds(root.finish_time)
            size += node.ByteSize()
            if tree.nodes and size > TREE_BYTES:
                break
            tree.nodes.append(node)
        tree.omitted = max(0, len(members) - len(tree.nodes))
        return tree


def begun(event: Event) -> Member:
    """Return the run that an event begins."""
    create_time = type(event.create_time)()
    create_time.CopyFrom(event.create_time)
    kind = KINDS.get(event.WhichOneof("payload") or "", "")
    return Member(Lineage.of(event), kind, event.agent_start.streaming, create_time)


def waiting(event: Event) -> OpenWait:
    """Return the wait that an event begins."""
    told = event.suspended
    wait = OpenWait(
        step_key=told.step_key,
        wait_id=event.sequence,
        kind=told.kind,
        create_time=event.create_time,
    )
    if told.HasField("expire_time"):
        wait.expire_time.CopyFrom(told.expire_time)
    return wait


def state_of(member: Member, root: RunRecord, *, idle: bool) -> RunState.ValueType:
    """Return the state of a run: that of its root, unless it has ended or the root runs.

    `idle` says that the run and those below it only wait.
    """
    if member.origin is None:
        return root.state
    if member.end is not None:
        return STATES[member.end.WhichOneof("payload") or ""]
    if root.state != RUNNING:
        return CANCELLED if root.state == COMPLETED else root.state
    return SUSPENDED if idle else RUNNING


def below(members: Sequence[Member]) -> dict[str, list[Member]]:
    """Return the children of each run that has any."""
    found: dict[str, list[Member]] = {}
    for member in members:
        if member.origin is not None:
            found.setdefault(member.origin.run_id, []).append(member)
    return found


def summed(members: Sequence[Member]) -> dict[str, Sum]:
    """Return what each run and the runs below it have used; a run comes after its parent."""
    children = below(members)
    found: dict[str, Sum] = {}
    for member in reversed(members):
        total = found[member.lineage.run_id] = Sum()
        total.add(member.used)
        for child in children.get(member.lineage.run_id, ()):
            total.add(found[child.lineage.run_id])
    return found


def resting(members: Sequence[Member]) -> dict[str, bool]:
    """Return of each run whether it and the runs below it only wait."""
    children = below(members)
    found: dict[str, bool] = {}
    for member in reversed(members):
        run_id = member.lineage.run_id
        open_ones = [one for one in children.get(run_id, ()) if one.end is None]
        started = {one.origin.step_key for one in open_ones if one.origin is not None}
        waits = bool(member.waits or open_ones) and member.steps.keys() <= started
        found[run_id] = waits and all(found[one.lineage.run_id] for one in open_ones)
    return found


def node_of(member: Member, used: Sum) -> RunNode:
    """Return a run as a message, without its state."""
    node = RunNode(
        run_id=member.lineage.run_id,
        workflow_id=member.lineage.workflow_id,
        kind=member.kind,
        create_time=member.create_time,
        usage=used.usage if used.calls else None,
        cost=used.cost,
    )
    if member.origin is not None:
        node.parent_run_id, node.parent_step_key = member.origin.run_id, member.origin.step_key
    if member.end is not None:
        node.finish_time.CopyFrom(member.end.create_time)
        node.error = text(member.end.error.message, ERROR)
    node.open_steps.extend([*member.steps.values()][:OPEN])
    node.open_waits.extend([*member.waits.values()][:OPEN])
    return node
