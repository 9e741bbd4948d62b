"""Root runs in SQLite that wait for the ends of others, told in the commit of such an end."""

from __future__ import annotations

import sqlite3
from contextlib import suppress

from polos_client.errors import RunExpired, RunNotFound
from polos_service.store import ENDED, end_of
from polos_service.store.sqlite.inbox import insert_command
from polos_service.store.sqlite.runs import row_of


def watch(db: sqlite3.Connection, project: str, run_id: str, root: str) -> bool:
    """Note that a root run is told of a run's end; False if it has ended."""
    run, state = row_of(db, project, run_id)
    if state in ENDED:
        return False
    db.execute("INSERT OR IGNORE INTO watchers (run, root) VALUES (?, ?)", (run, root))
    return True


def watched(db: sqlite3.Connection, project: str, run_id: str) -> bool:
    """Return whether any root run is told of a run's end."""
    row = db.execute(
        "SELECT EXISTS (SELECT 1 FROM watchers WHERE run = "
        "(SELECT id FROM runs WHERE project = ? AND run_id = ?))",
        (project, run_id),
    ).fetchone()
    return bool(row[0])


def tell(db: sqlite3.Connection, project: str, run_id: str) -> list[str]:
    """Tell a run's end to those who wait for it; return their ids."""
    roots = [
        root
        for (root,) in db.execute(
            "DELETE FROM watchers WHERE run = "
            "(SELECT id FROM runs WHERE project = ? AND run_id = ?) RETURNING root",
            (project, run_id),
        ).fetchall()
    ]
    for root in roots:
        with suppress(RunNotFound, RunExpired):  # it was removed meanwhile
            insert_command(db, project, root, end_of(run_id, root))
    return roots
