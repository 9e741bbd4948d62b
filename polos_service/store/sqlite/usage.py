"""What the runs of a project use, in SQLite: starts and stored bytes.

They are counted in the row of the project, in the transaction that changes them.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping

from polos_service.quotas import Quota
from polos_service.store import NewRun
from polos_service.store.sqlite.schema import QUEUED
from polos_service.store.usage import (
    check_queued,
    check_starts,
    check_stored,
    minute_of,
)


def admit(db: sqlite3.Connection, run: NewRun, quota: Quota) -> None:
    """Count a run that is about to be inserted.

    Raises:
        QuotaExceeded: its project has reached a limit.

    """
    minute = minute_of(run.create_time)
    if quota.queued is not None:
        (queued,) = db.execute(
            "SELECT count(*) FROM (SELECT 1 FROM runs "
            f"WHERE project = ? AND state = {QUEUED:d} LIMIT ?)",
            (run.project, quota.queued),
        ).fetchone()
        check_queued(run.project, quota, queued)
    row = db.execute(
        "SELECT iif(minute = ?, starts, 0), stored FROM usage WHERE project = ?",
        (minute, run.project),
    ).fetchone()
    starts, stored = row or (0, 0)
    check_stored(run.project, quota, stored)
    check_starts(run.project, quota, starts, run.create_time)
    db.execute(
        "INSERT INTO usage (project, minute, starts, stored) VALUES (?1, ?2, 1, ?4) "
        "ON CONFLICT (project) DO UPDATE SET minute = ?2, starts = ?3, stored = stored + ?4",
        (run.project, minute, starts + 1, len(run.definition)),
    )


def add_stored(db: sqlite3.Connection, sizes: Mapping[int, int]) -> None:
    """Add to the bytes that projects store, or subtract; `sizes` are by row of runs."""
    db.execute(
        "UPDATE usage SET stored = max(0, stored + added.bytes) FROM ("
        "SELECT runs.project AS project, sum(json_extract(one.value, '$[1]')) AS bytes "
        "FROM json_each(?) AS one JOIN runs ON runs.id = json_extract(one.value, '$[0]') "
        "GROUP BY runs.project"
        ") AS added WHERE usage.project = added.project",
        (json.dumps(list(sizes.items())),),
    )
