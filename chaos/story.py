"""What is known of a run after a round: what its readers saw, and what the store holds."""

from __future__ import annotations

import contextlib
import sqlite3
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from chaos.places import Place
from polos import TextChunk
from polos.v1.event_pb2 import Event
from polos.v1.run_service_pb2 import StreamRunResponse

if TYPE_CHECKING:
    from chaos.work import RunPlan


@dataclass(slots=True)
class Story:
    """A run as the harness saw it from outside.

    Attributes:
        plan: what the run was planned to do.
        run_id: its id; empty until its start was answered.
        origin: the run that started it and the key of the step; None: a caller did.
        live: the events that a reader saw which only iterated, from the start on.
        hopped: the events that a reader saw which left and came back, again and again.
        cursors: the cursors with which that reader came back.
        replayed: the events that a reader saw after the round.
        children: the events that a reader of each child saw, by the child's id.
        chunks: the chunks that its text reader received; None if it had no text reader.
        text: what `text()` returned; None if it raised.
        error: the name of the error that `text()` raised; empty if it raised none.
        cancelled: whether its cancellation was answered.
        accepted: the request ids of the answers that were accepted, as often as each was.
        refused: the reasons why answers were refused, by their request id.
        faults: how many faults of each place hit it.
        begun: whether its start was requested.
        done: whether its readers reached its end.
        problems: findings: what readers raised, and what took too long.

    """

    plan: RunPlan
    run_id: str = ""
    origin: tuple[str, str] | None = None
    live: list[Event] = field(default_factory=list)
    hopped: list[Event] = field(default_factory=list)
    cursors: list[int] = field(default_factory=list)
    replayed: list[Event] = field(default_factory=list)
    children: dict[str, list[Event]] = field(default_factory=dict)
    chunks: list[TextChunk] | None = None
    text: str | None = None
    error: str = ""
    cancelled: bool = False
    accepted: Counter[str] = field(default_factory=Counter)
    refused: defaultdict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    faults: Counter[Place] = field(default_factory=Counter)
    begun: bool = False
    done: bool = False
    problems: list[str] = field(default_factory=list)


@dataclass(slots=True)
class Log:
    """A run as the store holds it.

    Attributes:
        state: the state it is in, a RunState.
        events: its events, in the log's order.
        frames: the sequences of the first and the last event of each of its frames.
        takeovers: how often it passed to another claim, where the store records that.
        problems: findings in the store's own terms.

    """

    state: int
    events: list[Event] = field(default_factory=list)
    frames: list[tuple[int, int]] = field(default_factory=list)
    takeovers: int = 0
    problems: list[str] = field(default_factory=list)

    def inside(self, cursor: int) -> bool:
        """Return whether a cursor lies between two events of one frame."""
        return any(first <= cursor < last for first, last in self.frames)


@dataclass(frozen=True, slots=True)
class Effect:
    """An execution of a tool.

    Attributes:
        attempt: the number of its attempt.
        execution: its own id.
        amount: the argument of that name; empty if the tool takes none.

    """

    attempt: int
    execution: str
    amount: str


def logs_of(store: Path) -> dict[str, Log]:
    """Read every run of a SQLite store's file, by its id."""
    with contextlib.closing(sqlite3.connect(store)) as db:
        found = {
            run_id: Log(state) for run_id, state in db.execute("SELECT run_id, state FROM runs")
        }
        for run_id, first, last, data in db.execute(
            "SELECT run_id, first, last, data FROM frames JOIN runs ON runs.id = frames.run "
            "WHERE first <= last ORDER BY frames.id"
        ):
            found[run_id].frames.append((first, last))
            found[run_id].events += StreamRunResponse.FromString(data).events
    return found


def effects_of(ledger: Path) -> Mapping[str, Sequence[Effect]]:
    """Read the executions of tools from their ledger, by idempotency key.

    Each line of the ledger has a key, the number of an attempt, the id of an execution, and an
    amount if the tool takes one.
    """
    found: defaultdict[str, list[Effect]] = defaultdict(list)
    if ledger.exists():
        for line in ledger.read_text().splitlines():
            key, attempt, execution, *amount = line.split()
            found[key].append(Effect(int(attempt), execution, "".join(amount)))
    return found
