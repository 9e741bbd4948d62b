"""Claims in SQLite: who may write a run's log."""

from __future__ import annotations

import sqlite3
import time

from polos_service.store import Claim, Overdue
from polos_service.store.sqlite.damage import fitting
from polos_service.store.sqlite.inbox import commands_after
from polos_service.store.sqlite.log import HELD, LEFT, NEWEST_MARK, insert_mark, left_in
from polos_service.store.sqlite.runs import PARENT, PARENT_TYPES, parent_in
from polos_service.store.sqlite.schema import QUEUED, RUNNING
from polos_service.store.sqlite.spool import Spool

OVERDUE_LIMIT = 100
"""Overdue runs that one look finds, of the queued and of the held each."""


def find_run(db: sqlite3.Connection, project: str, run_id: str, *, held: bool) -> list[int]:
    """Return the row of this run, if it is queued, or with `held` if somebody holds it."""
    rows = db.execute(
        "SELECT id FROM runs WHERE project = ? AND run_id = ? AND state IN (?, ?)",
        (project, run_id, QUEUED, RUNNING if held else QUEUED),
    )
    return [int(row) for (row,) in rows]


def begin_claim(db: sqlite3.Connection, spool: Spool, run: int, writer: str) -> Claim:
    """Take the run with a greater epoch, and append the claim frame."""
    row = db.execute(
        "UPDATE runs SET state = ?, epoch = epoch + 1, start_time = coalesce(start_time, ?) "
        "WHERE id = ? "
        "RETURNING project, run_id, workflow_id, epoch, create_time, deadline, definition, "
        f"{NEWEST_MARK}, {PARENT}",
        (RUNNING, time.time_ns(), run),
    ).fetchone()
    project, run_id, workflow_id, epoch, create_time, deadline, definition, newest = fitting(
        row[: -len(PARENT_TYPES)], str, str, str, int, int, int | None, bytes, bytes | None
    )
    spool.let_go(db, project, run_id)
    mark: dict[str, object] = {"epoch": epoch, "writer": writer}
    if left := left_in(newest):
        mark[LEFT] = left
    latest = insert_mark(db, run, {"claim": mark})
    claim = Claim(
        project=project,
        run_id=run_id,
        workflow_id=workflow_id,
        epoch=epoch,
        latest=latest,
        create_time=create_time,
        deadline=deadline,
        definition=definition,
        commands=commands_after(db, run, 0),
        parent=parent_in(row[-len(PARENT_TYPES) :]),
    )
    spool.hold(claim, run)
    return claim


def requeue(
    db: sqlite3.Connection, spool: Spool, claim: Claim, *, failed: bool, left: str = ""
) -> bool:
    """Queue the run, if the claim still holds, and mark in the log that it was let go.

    Returns whether it held.
    """
    spool.let_go(db, claim.project, claim.run_id)
    row = db.execute(
        f"UPDATE runs SET state = {QUEUED:d} WHERE {HELD} RETURNING id",
        (claim.project, claim.run_id, claim.epoch),
    ).fetchone()
    if row is not None:
        mark: dict[str, object] = {"epoch": claim.epoch}
        if failed:
            mark["failed"] = True
        if left:
            mark[LEFT] = left
        insert_mark(db, row[0], {"released": mark})
    return row is not None


def overdue(db: sqlite3.Connection, now: int, stuck: int) -> list[Overdue]:
    """Return queued runs due by `now`, and held ones due by `stuck`; a cancelled run is due."""
    found: list[Overdue] = []
    for state, due, index in ((QUEUED, now, "runs_due"), (RUNNING, stuck, "runs_stuck")):
        rows = db.execute(
            f"SELECT project, run_id FROM runs INDEXED BY {index} WHERE state = {state:d} "
            "AND deadline IS NOT NULL AND deadline <= ? ORDER BY deadline LIMIT ?",
            (due, OVERDUE_LIMIT),
        )
        found += [
            Overdue(project=project, run_id=run_id, held=state == RUNNING)
            for project, run_id in rows
        ]
    return found
