"""The rows of runs in SQLite: creating, finding and listing them."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from dataclasses import astuple

from polos.v1.run_pb2 import RunState
from polos_service.store import NewRun, Parent, RunQuery, RunRecord
from polos_service.store.refusals import expired, not_found, reused, too_many
from polos_service.store.sqlite.damage import ForeignValueError, fitting
from polos_service.store.sqlite.log import NEWEST_MARK, left_in
from polos_service.store.sqlite.queue import Rules
from polos_service.store.sqlite.schema import EXPIRING, QUEUED, REMOVING, RUNNING
from polos_service.store.sqlite.usage import admit

LATEST = "(SELECT coalesce(max(last), 0) FROM frames WHERE run = runs.id)"
"""SQL for the newest sequence in a run's log, 0 if it is empty."""

PARENT = "parent_root, parent_run, parent_step, depth"
"""SQL for what a Parent has, in the order of its fields."""

PARENT_TYPES = (str | None, str | None, str | None, int | None)
"""The types of the values of PARENT."""

RECORD = (
    "run_id, workflow_id, state, session_id, user_id, streaming, "
    f"create_time, start_time, finish_time, {LATEST}, "
    f"CASE WHEN state IN ({QUEUED:d}, {RUNNING:d}) THEN {NEWEST_MARK} END, {PARENT}, "
    "input_preview"
)
"""SQL for what a RunRecord has, in the order of its fields."""

RECORD_TYPES = (
    *(str, str, int, str | None, str | None, int),
    *(int, int | None, int | None, int),
    *(bytes | None, *PARENT_TYPES, str),
)
"""The types of the values of RECORD."""

STATES = frozenset(RunState.values())
"""The states that a row may have that is shown to callers."""


def insert_run(db: sqlite3.Connection, run: NewRun, rules: Rules) -> str:
    """Insert a run, unless its request id or its step made one before; return that run's id.

    Raises:
        QuotaExceeded: its project has reached a limit.
        RequestIdReused: they made a run with another digest.
        TooManyRuns: as many runs are queued as may be.

    """
    if (made := made_by(db, run)) is not None:
        run_id, digest = made
        if digest != run.digest:
            raise reused(run, run_id)
        return run_id
    most = rules.max_queued
    (queued,) = db.execute(
        # Left to itself, SQLite would go through the states of all runs.
        "SELECT count(*) FROM (SELECT 1 FROM runs INDEXED BY runs_queued "
        f"WHERE state = {QUEUED:d} LIMIT ?)",
        (most,),
    ).fetchone()
    if queued == most:
        raise too_many(most)
    admit(db, run, rules.quotas.of(run.project))
    db.execute(
        "INSERT INTO runs (project, run_id, workflow_id, state, epoch, session_id, user_id, "
        "streaming, create_time, deadline, request_id, digest, definition, input_preview, "
        f"{PARENT}) "
        "VALUES (?, ?, ?, ?, 0, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            run.project,
            run.run_id,
            run.workflow_id,
            QUEUED,
            run.session_id,
            run.user_id,
            run.streaming,
            run.create_time,
            run.deadline,
            run.request_id,
            run.digest,
            run.definition,
            run.input_preview,
            *((None,) * 4 if run.parent is None else astuple(run.parent)),
        ),
    )
    return run.run_id


def made_by(db: sqlite3.Connection, run: NewRun) -> tuple[str, bytes] | None:
    """Return id and digest of the run that a request id or a step has made; None: they have not."""
    condition, given = "request_id = ?", [run.request_id]
    if run.parent is not None:
        condition = "parent_run = ? AND parent_step = ?"
        given = [run.parent.run_id, run.parent.step_key]
    row = db.execute(
        f"SELECT run_id, digest FROM runs WHERE project = ? AND {condition}", (run.project, *given)
    ).fetchone()
    if row is None:
        return None
    run_id, digest = fitting(row, str, bytes)
    return run_id, digest


def parent_in(values: Sequence[object]) -> Parent | None:
    """Return the parent in the values of PARENT; None if there is none."""
    root, run_id, step_key, depth = fitting(values, *PARENT_TYPES)
    if root is None:
        return None
    return Parent(root=root, run_id=run_id, step_key=step_key, depth=depth)


def row_of(db: sqlite3.Connection, project: str, run_id: str) -> tuple[int, int]:
    """Return row and state of a run that must exist."""
    row = db.execute(
        "SELECT id, state FROM runs WHERE project = ? AND run_id = ?", (project, run_id)
    ).fetchone()
    if row is None:
        raise not_found(run_id)
    run, state = fitting(row, int, int)
    if state == REMOVING:
        raise not_found(run_id)
    if state >= EXPIRING:
        raise expired(run_id)
    return run, state


def record_of(db: sqlite3.Connection, project: str, run_id: str) -> RunRecord:
    """Return the record of a run that must exist."""
    run, _ = row_of(db, project, run_id)
    return to_record(db.execute(f"SELECT {RECORD} FROM runs WHERE id = ?", (run,)).fetchone())


def definition_of(db: sqlite3.Connection, project: str, run_id: str) -> bytes:
    """Return what a run was created with that must exist."""
    run, _ = row_of(db, project, run_id)
    row = db.execute("SELECT definition FROM runs WHERE id = ?", (run,)).fetchone()
    (definition,) = fitting(row, bytes)
    return bytes(definition)


def records(db: sqlite3.Connection, project: str, query: RunQuery) -> list[RunRecord]:
    """Return the records that the query asks for."""
    conditions = {
        "project = ?": project,
        "run_id < ?": query.before,
        "workflow_id = ?": query.workflow_id,
        "state = ?": query.state,
        "session_id = ?": query.session_id,
        "user_id = ?": query.user_id,
        "create_time >= ?": query.created_from,
        "create_time < ?": query.created_before,
        "parent_root = ?": query.parent_root,
        "parent_run = ?": query.parent_run_id,
    }
    given = {term: value for term, value in conditions.items() if value is not None}
    rows = db.execute(
        f"SELECT {RECORD} FROM runs WHERE +state < {EXPIRING} AND {' AND '.join(given)} "
        "ORDER BY run_id DESC LIMIT ?",
        (*given.values(), query.limit),
    )
    return [to_record(row) for row in rows]


def to_record(row: Sequence[object]) -> RunRecord:
    """Build a record from a row of the columns in RECORD."""
    *told, preview = fitting(row, *RECORD_TYPES)
    parent = parent_in(told[-len(PARENT_TYPES) :])
    told[-len(PARENT_TYPES) :] = [parent, preview]
    values = dict(zip(RunRecord.__dataclass_fields__, told, strict=True))
    if values["state"] not in STATES:
        raise ForeignValueError(f"a run has the state {values['state']}")
    values["streaming"] = bool(values["streaming"])
    values["left"] = left_in(values["left"])
    return RunRecord(**values)
