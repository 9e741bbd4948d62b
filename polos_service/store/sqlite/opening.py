"""Opening a SQLite store: what the next owner does before anybody uses the file."""

from __future__ import annotations

from pathlib import Path

from polos_service.store.sqlite.schema import QUEUED, RUNNING, connect, migrate
from polos_service.store.sqlite.spool import recover


def prepare(path: Path, token: bytes) -> None:
    """Bring schema and logs up to date, and queue the runs that the last process left running.

    From the commit on the token names the owner, and every earlier owner is fenced.
    """
    db = connect(path)
    try:
        migrate(db)
        db.execute("BEGIN IMMEDIATE")
        db.execute("INSERT OR REPLACE INTO owner (id, token) VALUES (1, ?)", (token,))
        recover(db)
        db.execute(f"UPDATE runs SET state = {QUEUED:d} WHERE state = {RUNNING:d}")
        db.execute("COMMIT")
    finally:
        db.close()
