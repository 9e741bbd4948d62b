"""A run's inbox in SQLite: commands in order of arrival, each once."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Sequence

from polos_service.store import CANCEL, EARLY, ENDED, SETTLED, Command
from polos_service.store.refusals import require_cancel_id, require_room
from polos_service.store.sqlite.damage import fitting
from polos_service.store.sqlite.parking import wake
from polos_service.store.sqlite.runs import row_of

COLUMNS = "command_id, kind, run_id, step_key, payload"
"""SQL for what a Command is made of."""


def insert_command(
    db: sqlite3.Connection, project: str, run_id: str, command: Command
) -> Command | None:
    """Put a command last into the run's inbox, and return the one that has its id then.

    It is an earlier one if there is one; None if the run has ended. A suspended run is woken.
    Whoever cancels a run moves its deadline to now: what ends runs at their deadline ends it.
    """
    require_cancel_id(run_id, command)
    run, state = row_of(db, project, run_id)
    if state in ENDED:
        return None
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
    elif inserted and command.kind != SETTLED:
        count, size = db.execute(
            "SELECT count(*), sum(length(payload)) FROM inbox "
            f"WHERE run = ? AND kind != '{SETTLED}' AND command_id != ? AND (kind = ?) = ?",
            (run, CANCEL, EARLY, command.kind == EARLY),
        ).fetchone()
        require_room(run_id, command.kind, count, size)  # if there is none, the row is taken back
    wake(db, run)
    return command if inserted else command_of(db, run, command.id)


def settle_command(db: sqlite3.Connection, project: str, run_id: str, command: Command) -> None:
    """Put a command of the kind SETTLED in the place of the one that has its id."""
    run, _ = row_of(db, project, run_id)
    db.execute(
        "UPDATE inbox SET kind = ?, run_id = ?, step_key = ?, payload = ? "
        f"WHERE run = ? AND command_id = ? AND kind != '{SETTLED}'",
        (SETTLED, command.run_id, command.step_key, command.payload, run, command.id),
    )


def command_of(db: sqlite3.Connection, run: int, command_id: str) -> Command:
    """Return the command in the run's inbox that has this id."""
    row = db.execute(
        f"SELECT {COLUMNS} FROM inbox WHERE run = ? AND command_id = ?", (run, command_id)
    ).fetchone()
    return command_in(row)


def command_in(row: Sequence[object]) -> Command:
    """Return a row of the inbox as a command."""
    command_id, kind, run_id, step_key, payload = fitting(row, str, str, str, str, bytes)
    return Command(id=command_id, kind=kind, run_id=run_id, step_key=step_key, payload=payload)


def commands_after(db: sqlite3.Connection, run: int, seen: int) -> tuple[Command, ...]:
    """Return the commands in the run's inbox behind the first `seen`, in order of arrival."""
    rows = db.execute(
        f"SELECT {COLUMNS} FROM inbox WHERE run = ? ORDER BY id LIMIT -1 OFFSET ?", (run, seen)
    )
    return tuple(map(command_in, rows))
