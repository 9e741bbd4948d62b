"""The queue in SQLite: the runs that wait for a claim, taken project by project."""

from __future__ import annotations

import heapq
import json
import sqlite3
import time
from collections.abc import Collection
from dataclasses import dataclass

from polos_service.quotas import Quotas
from polos_service.store.fairness import Weights, urgency
from polos_service.store.sqlite.damage import fitting
from polos_service.store.sqlite.schema import QUEUED, RUNNING

LINES = f"""
WITH RECURSIVE head (id) AS (
    SELECT * FROM (
        SELECT id FROM runs WHERE state = {QUEUED:d} ORDER BY project, workflow_id, id LIMIT 1
    )
    UNION ALL
    SELECT coalesce(
        (
            SELECT id FROM runs
            WHERE state = {QUEUED:d}
                AND project = former.project AND workflow_id > former.workflow_id
            ORDER BY workflow_id, id LIMIT 1
        ),
        (
            SELECT id FROM runs
            WHERE state = {QUEUED:d} AND project > former.project
            ORDER BY project, workflow_id, id LIMIT 1
        )
    )
    FROM head JOIN runs AS former ON former.id = head.id
)
SELECT
    project,
    (
        SELECT json_group_array(id) FROM (
            SELECT id FROM runs
            WHERE state = {QUEUED:d}
                AND project = oldest.project AND workflow_id = oldest.workflow_id
            ORDER BY id LIMIT :limit
        )
    ),
    (SELECT count(*) FROM runs WHERE project = oldest.project AND state = {RUNNING:d}),
    (SELECT max(start_time) FROM runs WHERE project = oldest.project AND start_time IS NOT NULL)
FROM head JOIN runs AS oldest ON oldest.id = head.id
WHERE oldest.workflow_id IN (SELECT value FROM json_each(:workflows))
"""
"""SQL for the oldest queued runs of each project and workflow, with what decides whose turn it
is: how many runs the project holds, and when its last run began.

It goes from one project and workflow to the next in the index, so its cost does not depend on
the number of queued runs. Comparing both columns at once would: SQLite then searches by the
project alone.
"""


@dataclass(frozen=True, slots=True)
class Rules:
    """What decides who may queue runs, and whose turn it is.

    Attributes:
        max_queued: runs that may be queued, of all projects.
        weights: the weights of projects; see `fairness`.
        quotas: the limits of projects.

    """

    max_queued: int
    weights: Weights
    quotas: Quotas


@dataclass(slots=True)
class Line:
    """The queued runs of a project, as rows of `runs`, the next to claim last."""

    project: str
    runs: list[int]
    held: int
    started: int | None

    def bound(self, quotas: Quotas) -> bool:
        """Leave out the runs that the project may not have at once; return whether any are left."""
        room = quotas.room(self.project, self.held)
        if room is not None:
            del self.runs[: max(0, len(self.runs) - room)]
        return bool(self.runs)

    def place(self, weights: Weights, now: int) -> tuple[tuple[float, float], int]:
        """Return the place of the line's next run among those of all lines: the least is next."""
        turn = urgency(self.project, weights, held=self.held, started=self.started, now=now)
        return turn, self.runs[-1]


def find_queued(
    workflows: Collection[str], limit: int, rules: Rules, db: sqlite3.Connection
) -> list[int]:
    """Return the rows of the queued runs of these workflows whose turn it is, in that order."""
    lines = [line for line in lines_of(db, workflows, limit) if line.bound(rules.quotas)]
    weights = rules.weights
    if len(lines) == 1:
        return lines[0].runs[: -limit - 1 : -1]
    now = time.time_ns()
    places = [(line.place(weights, now), number) for number, line in enumerate(lines)]
    heapq.heapify(places)
    found: list[int] = []
    while places and len(found) < limit:
        number = places[0][1]
        line = lines[number]
        found.append(line.runs.pop())
        line.held, line.started = line.held + 1, now
        if line.runs:
            heapq.heapreplace(places, (line.place(weights, now), number))
        else:
            heapq.heappop(places)
    return found


def lines_of(db: sqlite3.Connection, workflows: Collection[str], limit: int) -> list[Line]:
    """Return a line for each project, with `limit` runs at least if it has so many queued."""
    found: dict[str, Line] = {}
    given = {"workflows": json.dumps(list(workflows)), "limit": limit}
    for row in db.execute(LINES, given):
        project, runs, held, started = fitting(row, str, str, int, int | None)
        line = found.setdefault(project, Line(project, [], held, started))
        line.runs += json.loads(runs)
    for line in found.values():
        line.runs.sort(reverse=True)
    return list(found.values())


def waiting(db: sqlite3.Connection) -> dict[str, int]:
    """Return how many runs are queued, by workflow."""
    return dict(
        db.execute(
            f"SELECT workflow_id, count(*) FROM runs WHERE state = {QUEUED:d} GROUP BY workflow_id"
        )
    )
