"""Removal of runs from SQLite: hidden at once, deleted in pieces that delay nobody for long.

A run that a caller deletes leaves nothing behind. One that retention removes leaves its row,
as a tombstone.
"""

from __future__ import annotations

import asyncio
import json
import sqlite3
from collections.abc import Coroutine
from typing import Any

from polos_service.cancelling import seen
from polos_service.store import ENDED
from polos_service.store.refusals import not_finished
from polos_service.store.sqlite.committer import Committer
from polos_service.store.sqlite.runs import row_of
from polos_service.store.sqlite.schema import EXPIRED, EXPIRING, REMOVING
from polos_service.store.sqlite.usage import add_stored
from polos_service.store.wakeups import Wakeups

PIECE = 256
"""Rows of a table that are deleted in one commit at most."""

PIECE_BYTES = 1024 * 1024
"""Bytes of a table's rows that are deleted in one commit at most, or a row more."""

CONTENT = {
    "frames": ("length(data) + length(private)", "length(data)"),
    "inbox": ("length(payload)", "0"),
}
"""The tables that hold what belongs to a run, with SQL for the bytes of a row of each, and for
whether they count for its project."""


def begin_removal(db: sqlite3.Connection, project: str, run_id: str) -> int:
    """Hide a run that has ended from everybody, and what made it; return its row."""
    run, state = row_of(db, project, run_id)
    if state not in ENDED:
        raise not_finished(run_id)
    forget_definition(db, run)
    db.execute(
        f"UPDATE runs SET state = {REMOVING}, request_id = NULL, parent_root = NULL, "
        "parent_run = NULL, parent_step = NULL WHERE id = ?",
        (run,),
    )
    return run


def forget_definition(db: sqlite3.Connection, run: int) -> None:
    """Remove the definition of a run, and the beginning of its input."""
    (size,) = db.execute("SELECT length(definition) FROM runs WHERE id = ?", (run,)).fetchone()
    add_stored(db, {run: -size})
    db.execute("UPDATE runs SET definition = x'', input_preview = '' WHERE id = ?", (run,))


def removals(db: sqlite3.Connection) -> list[int]:
    """Return the rows of runs whose removal has begun."""
    return [row for (row,) in db.execute(f"SELECT id FROM runs WHERE state = {REMOVING}")]


def remove(db: sqlite3.Connection, run: int) -> bool:
    """Remove a piece of a run that is being removed; False if nothing is left of it."""
    if remove_piece(db, run):
        return True
    db.execute(f"DELETE FROM runs WHERE id = ? AND state = {REMOVING}", (run,))
    return False


def expire(db: sqlite3.Connection, before: int) -> bool:
    """Remove a piece of a run that ended before a time; False if there is nothing to remove.

    The tombstone comes first, so that nobody reads half a log.
    """
    row = db.execute(f"SELECT id FROM runs WHERE state = {EXPIRING} LIMIT 1").fetchone()
    if row is None:
        row = db.execute(
            f"UPDATE runs SET state = {EXPIRING} WHERE id = (SELECT id FROM runs "
            f"WHERE finish_time < ? AND finish_time IS NOT NULL AND state < {EXPIRING} "
            "ORDER BY finish_time LIMIT 1) RETURNING id",
            (before,),
        ).fetchone()
        if row is not None:
            forget_definition(db, row[0])
    if row is None:
        return False
    if not remove_piece(db, row[0]):
        db.execute(f"UPDATE runs SET state = {EXPIRED} WHERE id = ?", row)
    return True


def remove_piece(db: sqlite3.Connection, run: int) -> bool:
    """Delete a piece of what the run has in each table; return whether there may be more."""
    for table, (length, counts) in CONTENT.items():
        rows = []
        size = counted = 0
        for row, added, counted_one in db.execute(
            f"SELECT id, {length}, {counts} FROM {table} WHERE run = ? LIMIT ?", (run, PIECE)
        ):
            rows.append(row)
            size += added
            counted += added if counted_one else 0
            if size >= PIECE_BYTES:
                break
        db.execute(
            f"DELETE FROM {table} WHERE id IN (SELECT value FROM json_each(?))",
            (json.dumps(rows),),
        )
        if counted:
            add_stored(db, {run: -counted})
        if size >= PIECE_BYTES or len(rows) == PIECE:
            return True
    found = db.execute(
        "DELETE FROM branches WHERE (run, number, last) IN "
        "(SELECT run, number, last FROM branches WHERE run = ? LIMIT ?)",
        (run, PIECE),
    )
    return found.rowcount == PIECE


class Removal:
    """Removes runs in tasks of its own: if a caller goes away, the removal goes on."""

    def __init__(self, committer: Committer, wakeups: Wakeups) -> None:
        self._committer = committer
        self._wakeups = wakeups
        self._tasks: set[asyncio.Task[None]] = set()

    async def delete(self, project: str, run_id: str) -> None:
        """Remove an ended run: at once for readers, in pieces on disk."""
        await asyncio.shield(self._spawn(self._delete(project, run_id)))

    def go_on(self, run: int) -> None:
        """Begin to remove what is left of a run whose removal has begun."""
        self._spawn(self._remove(run))

    async def _delete(self, project: str, run_id: str) -> None:
        def begin(db: sqlite3.Connection) -> int | None:
            run = begin_removal(db, project, run_id)
            return run if remove(db, run) else None

        run = await self._committer.submit(
            begin, lambda _: self._wakeups.notify(("log", project, run_id))
        )
        if run is not None:
            await self._remove(run)

    async def _remove(self, run: int) -> None:
        while await self._committer.submit(lambda db: remove(db, run)):
            pass

    def _spawn(self, removing: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(removing)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        task.add_done_callback(seen)  # the next process finishes the removal
        return task
