"""The index of open waits in SQLite."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, Sequence

from polos_service.store import ENDED, OPEN_BYTES, OPEN_LIMIT, WaitRecord
from polos_service.store.sqlite.damage import fitting
from polos_service.store.sqlite.runs import row_of

COLUMNS = "waits.run_id, waits.wait_id, waits.create_time, waits.data"
"""SQL for what a WaitRecord is made of."""


def open_wait(db: sqlite3.Connection, project: str, wait: WaitRecord) -> None:
    """Put a wait of a run that has not ended into the index."""
    run, state = row_of(db, project, wait.run_id)
    if state not in ENDED:
        db.execute(
            "INSERT OR IGNORE INTO waits (run, wait_id, project, run_id, create_time, data) "
            "VALUES (?, ?, ?, ?, ?, ?)",
            (run, wait.wait_id, project, wait.run_id, wait.create_time, wait.data),
        )


def close_wait(db: sqlite3.Connection, project: str, run_id: str, wait_id: int) -> None:
    """Take a wait out of the index."""
    db.execute(
        "DELETE FROM waits WHERE wait_id = ? "
        "AND run = (SELECT id FROM runs WHERE project = ? AND run_id = ?)",
        (wait_id, project, run_id),
    )


def waits_of(db: sqlite3.Connection, project: str, run_id: str) -> Sequence[WaitRecord]:
    """Return the open waits of a run, oldest first."""
    run, _ = row_of(db, project, run_id)
    rows = db.execute(
        f"SELECT {COLUMNS} FROM waits WHERE run = ? ORDER BY wait_id LIMIT ?", (run, OPEN_LIMIT)
    )
    found, size = [], 0
    for wait in records(rows):
        size += len(wait.data)
        if size > OPEN_BYTES:
            break
        found.append(wait)
    return found


def page_of(
    db: sqlite3.Connection, project: str, limit: int, after: tuple[int, str, int] | None
) -> Sequence[WaitRecord]:
    """Return the open waits of a project behind a place, oldest first."""
    return list(
        records(
            db.execute(
                f"SELECT {COLUMNS} FROM waits WHERE project = ? "
                "AND (create_time, run_id, wait_id) > (?, ?, ?) "
                "ORDER BY create_time, run_id, wait_id LIMIT ?",
                (project, *(after or (-1, "", 0)), limit),
            )
        )
    )


def records(rows: Iterable[Sequence[object]]) -> Iterator[WaitRecord]:
    """Yield rows as waits."""
    for row in rows:
        run_id, wait_id, create_time, data = fitting(row, str, int, int, bytes)
        yield WaitRecord(run_id=run_id, wait_id=wait_id, create_time=create_time, data=data)
