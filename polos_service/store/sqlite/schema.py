"""The schema of the SQLite store, its migrations, and how a file is opened."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Literal

from polos.v1.run_pb2 import RunState
from polos_service.store import SETTLED

QUEUED = RunState.RUN_STATE_QUEUED
"""State of a run that anybody may claim."""

RUNNING = RunState.RUN_STATE_RUNNING
"""State of a run that somebody holds."""

SUSPENDED = RunState.RUN_STATE_SUSPENDED
"""State of a run that only waits: nobody holds it."""

EXPIRING = 101
"""State of a run whose log retention is deleting. From here on the states are the store's own."""

EXPIRED = 102
"""State of a run whose log retention has deleted: its row is the tombstone."""

REMOVING = 103
"""State of a run that a caller has deleted, while its log is deleted piece by piece. Nobody can
see it any more."""

FIRST = f"""
CREATE TABLE runs (
    id INTEGER PRIMARY KEY,
    project TEXT NOT NULL,
    run_id TEXT NOT NULL,
    workflow_id TEXT NOT NULL,
    state INTEGER NOT NULL,
    epoch INTEGER NOT NULL,
    session_id TEXT,
    user_id TEXT,
    streaming INTEGER NOT NULL,
    create_time INTEGER NOT NULL,
    start_time INTEGER,
    finish_time INTEGER,
    deadline INTEGER,
    request_id TEXT,
    digest BLOB NOT NULL,
    definition BLOB NOT NULL
) STRICT;
CREATE UNIQUE INDEX runs_by_id ON runs (project, run_id);
CREATE UNIQUE INDEX runs_by_request ON runs (project, request_id) WHERE request_id IS NOT NULL;
CREATE INDEX runs_by_workflow ON runs (project, workflow_id, run_id);
CREATE INDEX runs_by_session ON runs (project, session_id, run_id) WHERE session_id IS NOT NULL;
CREATE INDEX runs_by_user ON runs (project, user_id, run_id) WHERE user_id IS NOT NULL;
CREATE INDEX runs_queued ON runs (id) WHERE state = {QUEUED:d};
CREATE TABLE frames (
    id INTEGER PRIMARY KEY,
    run INTEGER NOT NULL,
    first INTEGER NOT NULL,
    last INTEGER NOT NULL,
    data BLOB NOT NULL,
    private BLOB NOT NULL
) STRICT;
CREATE INDEX frames_by_run ON frames (run, last);
CREATE TABLE commands (
    run INTEGER NOT NULL,
    kind TEXT NOT NULL,
    PRIMARY KEY (run, kind)
) STRICT, WITHOUT ROWID;
"""
"""Version 1. Frames are rows in order of arrival; a row holds events that follow each other."""

SECOND = f"""
CREATE INDEX IF NOT EXISTS runs_due ON runs (deadline)
    WHERE state = {QUEUED:d} AND deadline IS NOT NULL;
CREATE INDEX runs_by_state ON runs (project, state, run_id);
CREATE INDEX runs_running ON runs (id) WHERE state = {RUNNING:d};
CREATE INDEX runs_finished ON runs (finish_time)
    WHERE finish_time IS NOT NULL AND state < {EXPIRING};
CREATE INDEX runs_expiring ON runs (id) WHERE state = {EXPIRING};
"""
"""Version 2: what deadlines, lists by state and retention look for."""

THIRD = f"""
CREATE TABLE owner (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    token BLOB NOT NULL
) STRICT;
CREATE INDEX runs_stuck ON runs (deadline)
    WHERE state = {RUNNING:d} AND deadline IS NOT NULL;
CREATE INDEX runs_removing ON runs (id) WHERE state = {REMOVING};
"""
"""Version 3: the owner of the file, runs stuck past their deadline, and deletion in pieces."""

FOURTH = f"""
CREATE TABLE inbox (
    id INTEGER PRIMARY KEY,
    run INTEGER NOT NULL,
    command_id TEXT NOT NULL,
    kind TEXT NOT NULL,
    run_id TEXT NOT NULL,
    step_key TEXT NOT NULL,
    payload BLOB NOT NULL
) STRICT;
CREATE INDEX inbox_by_run ON inbox (run);
CREATE UNIQUE INDEX inbox_by_command ON inbox (run, command_id);
INSERT INTO inbox (run, command_id, kind, run_id, step_key, payload)
    SELECT runs.id, commands.kind, commands.kind, runs.run_id, '', x''
    FROM commands JOIN runs ON runs.id = commands.run;
UPDATE runs SET deadline = create_time
    WHERE state IN ({QUEUED:d}, {RUNNING:d}) AND id IN (SELECT run FROM commands);
DROP TABLE commands;
"""
"""Version 4: whole commands, in order of arrival. Before, a run had at most one of a kind, and
cancel was the only kind. A cancellation moves the run's deadline, and nobody knows when those
came that are there already."""

FIFTH = """
CREATE TABLE spool (
    id INTEGER PRIMARY KEY,
    entries BLOB NOT NULL
) STRICT;
"""
"""Version 5: frames of held runs, a row for each commit (see `spool`)."""

SIXTH = """
CREATE TABLE access (
    name TEXT PRIMARY KEY,
    value BLOB NOT NULL,
    revision INTEGER NOT NULL
) STRICT;
CREATE UNIQUE INDEX access_by_revision ON access (revision);
"""
"""Version 6: what access is decided by (see `access`)."""

SEVENTH = f"""
DROP INDEX runs_queued;
CREATE INDEX runs_queued ON runs (project, workflow_id, id, state)
    WHERE state = {QUEUED:d};
CREATE INDEX runs_started ON runs (project, start_time) WHERE start_time IS NOT NULL;
"""
"""Version 7: what takes queued runs project by project looks for (see `queue`). With the state in
the index, queued runs are counted without a look at their rows; were it the first column,
SQLite would take the index for searches that others are made for."""

EIGHTH = """
CREATE TABLE usage (
    project TEXT PRIMARY KEY,
    minute INTEGER NOT NULL DEFAULT 0,
    starts INTEGER NOT NULL DEFAULT 0,
    day INTEGER NOT NULL DEFAULT 0,
    tokens INTEGER NOT NULL DEFAULT 0,
    usd_micros INTEGER NOT NULL DEFAULT 0,
    stored INTEGER NOT NULL DEFAULT 0
) STRICT, WITHOUT ROWID;
INSERT INTO usage (project, stored)
    SELECT project, sum(bytes) FROM (
        SELECT project, length(definition) AS bytes FROM runs
        UNION ALL
        SELECT runs.project, length(frames.data) + length(frames.private)
        FROM frames JOIN runs ON runs.id = frames.run WHERE length(frames.data) > 0
    ) GROUP BY project;
"""
"""Version 8: what each project uses (see `usage`): starts in a minute, tokens and cost in a day,
and the bytes of definitions and logs. Marks of claims do not count."""

NINTH = f"""
ALTER TABLE runs ADD COLUMN wake_time INTEGER;
CREATE INDEX runs_waking ON runs (wake_time)
    WHERE state = {SUSPENDED:d} AND wake_time IS NOT NULL;
CREATE TABLE waits (
    run INTEGER NOT NULL,
    wait_id INTEGER NOT NULL,
    project TEXT NOT NULL,
    run_id TEXT NOT NULL,
    create_time INTEGER NOT NULL,
    data BLOB NOT NULL,
    PRIMARY KEY (run, wait_id)
) STRICT, WITHOUT ROWID;
CREATE INDEX waits_by_age ON waits (project, create_time, run_id, wait_id);
"""
"""Version 9: when suspended runs are queued again, and the open waits of all runs."""

TENTH = f"""
CREATE INDEX inbox_unsettled ON inbox (run) WHERE kind != '{SETTLED}';
"""
"""Version 10: the commands that take room in the inbox of a run."""

ELEVENTH = """
ALTER TABLE runs ADD COLUMN parent_root TEXT;
ALTER TABLE runs ADD COLUMN parent_run TEXT;
ALTER TABLE runs ADD COLUMN parent_step TEXT;
ALTER TABLE runs ADD COLUMN depth INTEGER;
CREATE UNIQUE INDEX runs_by_step ON runs (project, parent_run, parent_step)
    WHERE parent_run IS NOT NULL;
CREATE INDEX runs_by_parent ON runs (project, parent_root, run_id) WHERE parent_root IS NOT NULL;
CREATE TABLE watchers (
    run INTEGER NOT NULL,
    root TEXT NOT NULL,
    PRIMARY KEY (run, root)
) STRICT, WITHOUT ROWID;
"""
"""Version 11: the steps that have started runs, each of which has started one at most; and who
waits for the end of a run."""

TWELFTH = """
ALTER TABLE runs ADD COLUMN input_preview TEXT NOT NULL DEFAULT '';
"""
"""Version 12: the beginnings of inputs, for lists. They are empty for runs of earlier versions."""

ANY = 0
"""Stands in `branches` for every number: nobody knows whose events the row of frames has."""

THIRTEENTH = f"""
CREATE TABLE branches (
    run INTEGER NOT NULL,
    number INTEGER NOT NULL,
    last INTEGER NOT NULL,
    PRIMARY KEY (run, number, last)
) STRICT, WITHOUT ROWID;
INSERT OR IGNORE INTO branches (run, number, last)
    SELECT run, {ANY}, last FROM frames WHERE first <= last;
"""
"""Version 13: the rows of frames in which a child, or a run below it, has events. `last` is that of
the row. What was there before may have events of any child."""

MIGRATIONS = (
    *(FIRST, SECOND, THIRD, FOURTH, FIFTH, SIXTH, SEVENTH, EIGHTH, NINTH, TENTH),
    *(ELEVENTH, TWELFTH, THIRTEENTH),
)
"""The step from each version of the schema to the next; a new file takes them all. The file
keeps its version in `user_version`."""

PAGE_SIZE = 1024
"""Bytes of a page of a new file. A commit writes each page that it touches whole, and in most of
them it changes only a few bytes of an index."""

CHECKPOINT = 4 * 1024 * 1024
"""Bytes of the write-ahead log after which it is written back into the file."""

WAL_LIMIT = 64 * 1024 * 1024
"""Bytes that the write-ahead log keeps on disk once it has been written back."""

Synchronous = Literal["FULL", "NORMAL"]
"""FULL: a commit survives a power failure. NORMAL: it survives the end of the process only."""


def connect(path: Path, synchronous: Synchronous = "FULL") -> sqlite3.Connection:
    """Open a connection whose transactions the caller begins and ends."""
    db = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    db.execute(f"PRAGMA page_size = {PAGE_SIZE}")
    db.execute("PRAGMA journal_mode = WAL")
    db.execute(f"PRAGMA wal_autocheckpoint = {CHECKPOINT // PAGE_SIZE}")
    db.execute(f"PRAGMA synchronous = {synchronous}")
    db.execute(f"PRAGMA journal_size_limit = {WAL_LIMIT}")
    return db


def migrate(db: sqlite3.Connection) -> None:
    """Take every step from the file's version to ours, each in a transaction of its own.

    Raises:
        sqlite3.DatabaseError: the file has a newer version than this service knows.

    """
    (version,) = db.execute("PRAGMA user_version").fetchone()
    if version > len(MIGRATIONS):
        raise sqlite3.DatabaseError(
            f"it has schema version {version}, and this service reads up to version "
            f"{len(MIGRATIONS)}; start a newer service, or restore a backup"
        )
    for step in range(version, len(MIGRATIONS)):
        db.executescript(f"BEGIN;{MIGRATIONS[step]}PRAGMA user_version = {step + 1};COMMIT;")
