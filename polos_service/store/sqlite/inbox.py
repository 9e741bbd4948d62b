"""A run's inbox in SQLite: commands in order of arrival, each once."""

from __future__ import annotations

import sqlite3
import time

from polos_service.store import CANCEL, ENDED, INBOX_BYTES, INBOX_LIMIT, Command
from polos_service.store.refusals import inbox_full, require_cancel_id
from polos_service.store.sqlite.damage import fitting
from polos_service.store.sqlite.runs import row_of


def insert_command(db: sqlite3.Connection, project: str, run_id: str, command: Command) -> None:
    """Put a command last into the run's inbox, unless it is there or the run has ended.

    Whoever cancels a run moves its deadline to now: what ends runs at their deadline ends it.
    """
    require_cancel_id(run_id, command)
    run, state = row_of(db, project, run_id)
    if state in ENDED:
        return
    inserted = db.execute(
        "INSERT OR IGNORE INTO inbox (run, command_id, kind, run_id, step_key, payload) "
        "VALUES (?, ?, ?, ?, ?, ?)",
        (run, command.id, command.kind, command.run_id, command.step_key, command.payload),
    ).rowcount
    if command.id == CANCEL:
        db.execute(
            "UPDATE runs SET deadline = min(coalesce(deadline, ?1), ?1) WHERE id = ?2",
            (time.time_ns(), run),
        )
    elif inserted:
        count, size = db.execute(
            "SELECT count(*), sum(length(payload)) FROM inbox WHERE run = ? AND command_id != ?",
            (run, CANCEL),
        ).fetchone()
        if count > INBOX_LIMIT or size > INBOX_BYTES:
            raise inbox_full(run_id)  # which takes the row back


def commands_after(db: sqlite3.Connection, run: int, seen: int) -> tuple[Command, ...]:
    """Return the commands in the run's inbox behind the first `seen`, in order of arrival."""
    rows = db.execute(
        "SELECT command_id, kind, run_id, step_key, payload FROM inbox WHERE run = ? "
        "ORDER BY id LIMIT -1 OFFSET ?",
        (run, seen),
    )
    return tuple(
        Command(id=command_id, kind=kind, run_id=run_id, step_key=step_key, payload=payload)
        for command_id, kind, run_id, step_key, payload in (
            fitting(row, str, str, str, str, bytes) for row in rows
        )
    )
