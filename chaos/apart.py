"""What is wrong with runs that others start beside themselves, each with a log of its own."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from chaos.grown import Part, parts_of, value_of
from chaos.story import Log, Story
from chaos.tree import Branch, apart


def wrong_apart(stories: Sequence[Story], logs: Mapping[str, Log]) -> Iterator[str]:
    """Yield what is wrong with how runs of a round start others, and wait for them."""
    for story in stories:
        log = logs.get(story.run_id)
        if log is None or not story.done:
            continue
        parent = root_of(story, log)
        for number, branch in apart(story.plan):
            started = [one for one in stories if one.origin == (story.run_id, branch.key)]
            found = [
                *wrong_start(parent, branch, started),
                *wrong_wait(parent, number, started, logs),
            ]
            yield from (f"{story.plan.name} ({story.run_id}): {one}" for one in found)


def root_of(story: Story, log: Log) -> Part:
    """Return a run without its children."""
    (root, *_), _ = parts_of(story, log)
    return root


def wrong_start(parent: Part, branch: Branch, started: Sequence[Story]) -> Iterator[str]:
    """Yield what is wrong with how a step starts a run."""
    ids = [one.run_id for one in started]
    if len(ids) > 1:
        yield f"twice: step {branch.key} started the runs {ids}"
    ends = (one.step_finish for one in parent.events if one.HasField("step_finish"))
    told = [one.started_run_id for one in ends if one.step_key == branch.key]
    if parent.completed and (told != ids or not ids):
        yield f"lost: step {branch.key} tells the runs {told}, and there are {ids}"


def wrong_wait(
    parent: Part, number: int, started: Sequence[Story], logs: Mapping[str, Log]
) -> Iterator[str]:
    """Yield what a run got from another that this has not come to, or not yet."""
    if not parent.completed or len(started) != 1 or started[0].run_id not in logs:
        return
    story = started[0]
    other = root_of(story, logs[story.run_id])
    if parent.story.plan.moves[number].kind == "leave":
        wanted: Any = story.run_id
    else:
        wanted = value_of(other)
        yield from early(parent, f"e{number}", other)
    got = json.loads(parent.events[-1].workflow_finish.result_json)[number]
    if got != wanted:
        yield f"apart: move {number} came to {got}, and the run {story.run_id} to {wanted}"


def early(parent: Part, key: str, other: Part) -> Iterator[str]:
    """Yield a wait that ends before the run whose end it waits for."""
    ends = [one for one in parent.events if one.resumed.step_key == key]
    if len(ends) != 1 or other.end is None:
        yield f"apart: the wait {key} ended {len(ends)} times"
    elif ends[0].create_time.ToNanoseconds() < other.end.create_time.ToNanoseconds():
        yield f"time: the wait {key} ended before the run {other.story.run_id}"
