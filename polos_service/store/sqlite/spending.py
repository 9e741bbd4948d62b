"""The UsageStore in SQLite."""

from __future__ import annotations

import sqlite3

from polos_service.store.sqlite.committer import Committer
from polos_service.store.sqlite.snapshots import Snapshots
from polos_service.store.usage import Spent


class Usage:
    """What projects spend, in the table `usage`."""

    def __init__(self, committer: Committer, reading: Snapshots) -> None:
        self._committer = committer
        self._reading = reading

    async def spend(self, project: str, day: int, spent: Spent) -> None:
        """Add to what a project has spent in a day."""
        await self._committer.submit(lambda db: add_spent(db, project, day, spent))

    async def spent(self, project: str, day: int) -> Spent:
        """Return what was added for a project and a day."""
        with self._reading() as db:
            row = db.execute(
                "SELECT tokens, usd_micros FROM usage WHERE project = ? AND day = ?",
                (project, day),
            ).fetchone()
        return Spent(*row) if row is not None else Spent()


def add_spent(db: sqlite3.Connection, project: str, day: int, spent: Spent) -> None:
    """Add to what a project has spent in a day; the first of a day begins at zero."""
    db.execute(
        "INSERT INTO usage (project, day, tokens, usd_micros) VALUES (?, ?, ?, ?) "
        "ON CONFLICT (project) DO UPDATE SET day = excluded.day, "
        "tokens = excluded.tokens + iif(day = excluded.day, tokens, 0), "
        "usd_micros = excluded.usd_micros + iif(day = excluded.day, usd_micros, 0)",
        (project, day, spent.tokens, spent.usd_micros),
    )
