"""What the runs of the workflow do: steps, timers, races, and questions that somebody answers."""

from __future__ import annotations

import json
import random
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from chaos.questions import EXPIRY
from chaos.story import Effect, Log, Story
from polos.v1.event_pb2 import Event

FLOW = "chaos-flow"
"""The id of the workflow."""

KINDS = ("step", "both", "nap", "ask", "ask", "race")
"""The kinds of moves, as often as each stands here."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Move:
    """A move of the workflow's code.

    Attributes:
        kind: `step`, or `both`: two steps at once; `nap`: a timer; `ask`: a wait for an answer;
            `race`: a step against a timer.
        seconds: how long the timer takes, or how long a step takes that races it.
        expires: whether a question expires, after `seconds`.

    """

    kind: str
    seconds: float
    expires: bool

    def told(self) -> dict[str, Any]:
        """Return what the workflow is told of it."""
        timeout = self.seconds if self.expires else None
        return {"kind": self.kind, "seconds": self.seconds, "timeout": timeout}


def moves(chance: random.Random) -> tuple[Move, ...]:
    """Return the moves of a run."""
    return tuple(
        Move(
            kind=chance.choice(KINDS),
            seconds=chance.uniform(0.01, 0.4),
            expires=chance.random() < EXPIRY,
        )
        for _ in range(chance.randint(3, 9))
    )


def payload_of(moves: Sequence[Move]) -> dict[str, Any]:
    """Return what the workflow is started with."""
    return {"moves": [move.told() for move in moves]}


def key_of(number: int) -> str:
    """Return the key of a question."""
    return f"a{number}"


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
    """Yield races that had both winners."""
    keys = {event.step_start.step_key for event in events if event.HasField("step_start")}
    for number, move in enumerate(story.plan.moves):
        if move.kind == "race" and {f"w{number}-step", f"w{number}-nap"} <= keys:
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
