"""What the runs of the workflow do: steps, timers, races, questions, and children."""

from __future__ import annotations

import json
import random
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from chaos.questions import EXPIRY
from chaos.story import Effect, Log, Story
from polos.v1.event_pb2 import Event

if TYPE_CHECKING:
    from chaos.work import Work

FLOW = "chaos-flow"
"""The id of the workflow."""

KINDS = ("step", "both", "nap", "ask", "ask", "race")
"""The kinds of moves without children, as often as each stands here."""

APART = ("await", "leave")
"""The kinds of moves that start a run with a log of its own."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Move:
    """A move of the workflow's code.

    Attributes:
        kind: `step`, or `both`: two steps at once; `nap`: a timer; `ask`: a wait for an answer;
            `race`: a step against a timer; `child`: a child; `batch`: several at once; `retry`: a
            child that fails, and then another in its place; `dare`: a child against a timer;
            `await`: a run with a log of its own, whose end is awaited; `leave`: one that is left.
        seconds: how long the timer takes, or how long a step takes that races it.
        expires: whether a question expires, after `seconds`.
        children: what the children do, or the run with a log of its own.

    """

    kind: str
    seconds: float
    expires: bool
    children: tuple[Work, ...] = ()

    def told(self) -> dict[str, Any]:
        """Return what the workflow is told of it."""
        timeout = self.seconds if self.expires else None
        children = [one.told() for one in self.children]
        return {
            "kind": self.kind,
            "seconds": self.seconds,
            "timeout": timeout,
            "children": children,
        }


def move(chance: random.Random, kind: str, children: tuple[Work, ...] = ()) -> Move:
    """Return a move."""
    return Move(
        kind=kind,
        seconds=chance.uniform(0.01, 0.4),
        expires=chance.random() < EXPIRY,
        children=children,
    )


def key_of(number: int) -> str:
    """Return the key of a question."""
    return f"a{number}"


def keys_of(kind: str, number: int, children: int) -> list[str]:
    """Return the keys of the steps whose children a move starts."""
    key = f"k{number}"
    if kind == "batch":
        return [f"{key}/{index}" for index in range(children)]
    return [key, f"{key}-again"][:children]


def wrong_moves(story: Story, log: Log, effects: Mapping[str, Sequence[Effect]]) -> Iterator[str]:
    """Yield what is wrong with a run of the workflow."""
    yield from races(story, log.events)
    yield from steps(story, log, effects)
    end = log.events[-1]
    if end.HasField("workflow_finish"):
        result = json.loads(end.workflow_finish.result_json)
        if len(result) != len(story.plan.moves):
            yield f"lost: {len(result)} moves have a result, of {len(story.plan.moves)}"


def races(story: Story, events: Sequence[Event]) -> Iterator[str]:
    """Yield races that had both winners, unless they were run again."""
    if any(event.HasField("workflow_retry") for event in events):
        return
    keys = {event.step_start.step_key for event in events if event.HasField("step_start")}
    for number, move in enumerate(story.plan.moves):
        if move.kind in {"race", "dare"} and {f"w{number}-step", f"w{number}-nap"} <= keys:
            yield f"race: both branches of move {number} were taken"


def steps(story: Story, log: Log, effects: Mapping[str, Sequence[Effect]]) -> Iterator[str]:
    """Yield steps whose function ran more often than it was announced, or after its end."""
    announced: Counter[str] = Counter()
    results: defaultdict[str, list[str]] = defaultdict(list)
    for event in log.events:
        if event.HasField("step_start"):
            announced[event.step_start.step_key] += 1
        elif event.HasField("step_retry"):
            announced[event.step_retry.step_key] += 1
        elif event.HasField("step_finish") and event.step_finish.result_json:
            results[event.step_finish.step_key].append(event.step_finish.result_json)
    for key, times in announced.items():
        done = effects.get(f"{story.run_id}/{key}", ())
        if len(done) > times:
            yield f"twice: {key} ran {len(done)} times in {times} attempts"
        for result in results[key]:
            if done and json.loads(result) not in [one.execution for one in done]:
                yield f"twice: {key} ended with {result}, which no execution returned"
