"""The AccessStore in SQLite."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

from polos_service.store.access import AccessEntry, Changed
from polos_service.store.sqlite.committer import Committer
from polos_service.store.sqlite.snapshots import Snapshots

PAGE = 500
"""Values that one look returns at most."""


class Access:
    """Values by name, in a table of the store's file."""

    def __init__(self, committer: Committer, reading: Snapshots) -> None:
        self._committer = committer
        self._reading = reading

    async def entries(self, after: int) -> Sequence[AccessEntry]:
        """Return values that were put after a revision."""
        with self._reading() as db:
            rows = db.execute(
                "SELECT name, value, revision FROM access WHERE revision > ? "
                "ORDER BY revision LIMIT ?",
                (after, PAGE),
            ).fetchall()
        return [
            AccessEntry(name=name, value=value, revision=revision) for name, value, revision in rows
        ]

    async def put(self, name: str, value: bytes, revision: int) -> int:
        """Put a value in place of the one with this revision."""
        return await self._committer.submit(lambda db: put(db, name, value, revision))


def put(db: sqlite3.Connection, name: str, value: bytes, revision: int) -> int:
    """Put a value, in a transaction; return its revision.

    Raises:
        Changed: the name has another value.

    """
    found = db.execute("SELECT value, revision FROM access WHERE name = ?", (name,)).fetchone()
    last, current = found or (None, 0)
    if last == value:
        return int(current)
    if current != revision:
        raise Changed(name)
    (newest,) = db.execute("SELECT coalesce(max(revision), 0) FROM access").fetchone()
    db.execute(
        "INSERT OR REPLACE INTO access (name, value, revision) VALUES (?, ?, ?)",
        (name, value, newest + 1),
    )
    return int(newest) + 1
