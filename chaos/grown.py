"""What is wrong with a tree of runs: the log of its root against what each run was to start."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from chaos.moves import APART, keys_of
from chaos.story import Log, Story
from chaos.tree import FALLS_FOR_GOOD, Branch, branches
from chaos.work import of_work
from polos.v1.error_pb2 import FailureReason
from polos.v1.event_pb2 import Event, StepFinish

COMPLETED = ("agent_finish", "workflow_finish")
"""The events that a run ends with that has done all that it was to do."""

ENDS = (*COMPLETED, "error", "run_cancelled")
"""The events that a run ends with, a child as well as the root."""

GIVEN_UP = FailureReason.FAILURE_REASON_STEP_CANCELLED


@dataclass(frozen=True, slots=True)
class Part:
    """One run of a tree.

    Attributes:
        story: what is known of it, as of a run of its own.
        log: its events.
        parent: the run that started it; None: it is the root.
        branch: the step that was to start it; None: it is the root.

    """

    story: Story
    log: Log
    parent: Part | None = None
    branch: Branch | None = None

    @property
    def events(self) -> Sequence[Event]:
        """Its events."""
        return self.log.events

    @property
    def end(self) -> Event | None:
        """The event that it ended with."""
        return next((one for one in self.events if one.WhichOneof("payload") in ENDS), None)

    @property
    def completed(self) -> bool:
        """Whether it has done all that it was to do."""
        return self.end is not None and self.end.WhichOneof("payload") in COMPLETED

    @property
    def name(self) -> str:
        """How a finding names it; empty for the root."""
        return f"{self.story.run_id} ({self.story.plan.name}): " if self.parent else ""


def parts_of(story: Story, log: Log) -> tuple[Sequence[Part], Sequence[str]]:
    """Return the runs of a tree that were to be started, the root first, and the ids of others."""
    events: defaultdict[str, list[Event]] = defaultdict(list)
    for event in log.events:
        events[event.run_id].append(event)
    root = Part(story, Log(log.state, events.pop(story.run_id, [])))
    started: defaultdict[tuple[str, str], list[str]] = defaultdict(list)
    for run_id, told in events.items():
        started[told[0].parent_run_id, told[0].parent_step_key].append(run_id)
    parts = [root]
    for parent in parts:
        for branch in branches(parent.story.plan):
            for run_id in started.pop((parent.story.run_id, branch.key), ()):
                child = Log(0, events[run_id])
                parts.append(Part(child_of(parent.story, run_id, branch), child, parent, branch))
    return parts, [run_id for ids in started.values() for run_id in ids]


def child_of(parent: Story, run_id: str, branch: Branch) -> Story:
    """Return what is known of a child, as of a run of its own."""
    may_end = 0.0 if branch.given_up else parent.plan.cancel
    return replace(
        parent,
        run_id=run_id,
        plan=replace(of_work(parent.plan, branch.work), cancel=may_end),
    )


def of_branch(run_id: str, events: Sequence[Event]) -> list[Event]:
    """Return what the stream of a child has: its events and those of the runs below it.

    It ends with the child's end, which is terminal there.
    """
    runs, found = {run_id}, []
    for event in events:
        if event.parent_run_id in runs:
            runs.add(event.run_id)
        if event.run_id in runs:
            found.append(event)
        if event.run_id == run_id and event.WhichOneof("payload") in ENDS:
            end = Event()
            end.CopyFrom(event)
            end.terminal = True
            return [*found[:-1], end]
    return found


def wrong_tree(story: Story, parts: Sequence[Part], strange: Sequence[str]) -> Iterator[str]:
    """Yield what is wrong with how the runs of a tree belong together."""
    for run_id in strange:
        yield f"tree: nobody was to start the child {run_id}"
    for part in parts:
        children = [one for one in parts if one.parent is part]
        found = [*wrong_children(part, children), *wrong_usage(part, children)]
        if part.parent is not None and part.branch is not None:
            found += [*wrong_start(story, part), *wrong_end(part)]
            found += wrong_step(part, part.parent, part.branch)
        yield from (part.name + one for one in found)


def wrong_start(story: Story, part: Part) -> Iterator[str]:
    """Yield what is wrong with how a child begins."""
    first = part.events[0]
    if part.story.run_id != f"{story.run_id}:{first.sequence}":
        yield f"tree: its first event is {first.sequence}"
    kind = first.WhichOneof("payload")
    if kind != ("workflow_start" if part.story.plan.moves else "agent_start"):
        yield f"tree: it begins with {kind}"
    if len({identity(event) for event in part.events}) > 1:
        yield "tree: its events name several parents"


def identity(event: Event) -> tuple[str, str, int, str]:
    """Return which run an event says that it belongs to."""
    return event.parent_run_id, event.parent_step_key, event.parent_attempt, event.workflow_id


def wrong_end(part: Part) -> Iterator[str]:
    """Yield what is wrong with how a child ends."""
    ends = [one.sequence for one in part.events if one.WhichOneof("payload") in ENDS]
    if ends != [part.events[-1].sequence] or part.end is None:
        yield f"terminal: its ends are {ends}, and its last event is {part.events[-1].sequence}"
        return
    kind = part.end.WhichOneof("payload")
    fails = part.story.plan.falls == FALLS_FOR_GOOD
    if kind == "run_cancelled" and part.story.plan.cancel is not None:
        return
    if kind not in (("error",) if fails else COMPLETED):
        yield f"state: it ended with {part.end}"


def wrong_step(part: Part, parent: Part, branch: Branch) -> Iterator[str]:
    """Yield what is wrong with the step of its parent that started a child."""
    begun, finish = step_of(parent, branch.key, part.events[0].parent_attempt)
    first, last = part.events[0].sequence, part.events[-1].sequence
    if begun is None or begun > first:
        yield f"tree: it begins with event {first}, and its parent's step with {begun}"
    over = parent.end and parent.end.sequence
    if over is not None and over < last:
        yield f"tree: its parent ends with event {over}, before its event {last}"
    if finish is None:
        return
    if finish.sequence < last:
        yield f"tree: its parent's step ends with event {finish.sequence}, before its event {last}"
    told = finish.step_finish
    if told.failure.reason != GIVEN_UP and told.HasField("failure") == part.completed:
        yield f"tree: its parent's step ended with {told}, and the child with {part.end}"
    elif part.completed and not told.HasField("failure") and result_of(told) != value_of(part):
        yield f"tree: its parent's step has the result {told.result_json}, not {value_of(part)}"


def step_of(part: Part, key: str, attempt: int) -> tuple[int | None, Event | None]:
    """Return the sequence of the start of an attempt of a step, and the event of its end."""
    begun, finish = None, None
    for event in part.events:
        for told in (event.step_start, event.step_retry):
            if told.step_key == key and told.attempt == attempt and begun is None:
                begun = event.sequence
        if event.step_finish.step_key == key and event.step_finish.attempt == attempt:
            finish = event
    return begun, finish


def wrong_children(part: Part, children: Sequence[Part]) -> Iterator[str]:
    """Yield children of a run that are missing, too many, or came to something else."""
    by_key: defaultdict[str, list[Part]] = defaultdict(list)
    for one in children:
        by_key[one.events[0].parent_step_key].append(one)
    for branch in branches(part.story.plan):
        found = by_key[branch.key]
        if part.completed and not found and not branch.given_up:
            yield f"lost: step {branch.key} started no child"
        if len(found) > 1 and not all(map(is_given_up, found[:-1])):
            yield f"twice: step {branch.key} started {[one.story.run_id for one in found]}"
    end = part.events[-1] if part.events else Event()
    if end.HasField("workflow_finish") and part.story.plan.moves:
        newest = {key: found[-1] for key, found in by_key.items() if found}
        yield from wrong_values(part, newest, json.loads(end.workflow_finish.result_json))


def is_given_up(part: Part) -> bool:
    """Return whether a child was ended by its parent's code, which may start another."""
    return part.end is not None and part.end.HasField("run_cancelled")


def wrong_values(part: Part, children: Mapping[str, Part], result: Sequence[Any]) -> Iterator[str]:
    """Yield moves whose result is not what their children came to."""
    moves = enumerate(part.story.plan.moves)
    for (number, move), found in zip(moves, result, strict=False):
        if not move.children or move.kind in {"dare", *APART}:
            continue
        keys = keys_of(move.kind, number, len(move.children))
        wanted = [value_of(children[key]) if key in children else None for key in keys]
        if found != wanted:
            yield f"tree: move {number} came to {found}, and its children to {wanted}"


def wrong_usage(part: Part, children: Sequence[Part]) -> Iterator[str]:
    """Yield tokens that a run tells otherwise than its model calls and its children have them."""
    if part.end is None:
        return
    finishes = [one.step_finish for one in part.events if one.step_finish.step_type == "llm"]
    stand = sum(one.usage.total_tokens for one in finishes if not one.HasField("failure"))
    made = sum(one.usage.total_tokens for one in finishes)
    made += sum(one.step_retry.usage.total_tokens for one in part.events)
    standing = [one for one in children if not is_void(one, part)]
    for what, calls, below in (("usage", stand, standing), ("spent", made, children)):
        told = tokens_of(part.end, what)
        theirs = sum(tokens_of(one.end, what) for one in below if one.end)
        if told != calls + theirs:
            yield f"{what}: it tells {told} tokens, its calls took {calls}, its children {theirs}"


def is_void(part: Part, parent: Part) -> bool:
    """Return whether the step that started a child began anew, which voids the child."""
    key, attempt = part.events[0].parent_step_key, part.events[0].parent_attempt
    retries = [one.step_retry for one in parent.events if one.step_retry.step_key == key]
    return any(one.attempt > attempt for one in retries)


def tokens_of(end: Event, what: str) -> int:
    """Return the tokens that the end of a run tells: its `usage`, or what it has `spent`."""
    return int(getattr(getattr(end, str(end.WhichOneof("payload"))), what).total_tokens)


def value_of(part: Part) -> Any:
    """Return what a child gives to its parent's code; None if it failed."""
    if part.end is None or not part.completed:
        return None
    if part.end.HasField("agent_finish"):
        return part.end.agent_finish.result
    return json.loads(part.end.workflow_finish.result_json)


def result_of(finish: StepFinish) -> Any:
    """Return what the step of a child recorded that gives its result."""
    told = json.loads(finish.result_json)
    return told["result"] if isinstance(told, dict) else told
