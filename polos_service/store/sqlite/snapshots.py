"""Reads in the loop: each sees one state of the file, and tells what it cannot read."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager

from polos_client.errors import StoreUnavailable
from polos_service.store.sqlite.condition import Condition


class Snapshots:
    """Begins reads on the connection that the loop reads with."""

    def __init__(self, db: sqlite3.Connection, condition: Condition) -> None:
        self._db = db
        self._condition = condition

    @contextmanager
    def __call__(self, what: str = "store") -> Iterator[sqlite3.Connection]:
        """Raise StoreUnavailable for what SQLite refuses, and for values that are damaged."""
        try:
            self._db.execute("BEGIN")  # a commit between two reads would look like damage
            try:
                yield self._db
            finally:
                if self._db.in_transaction:  # SQLite ends it by itself if the disk fails
                    self._db.execute("COMMIT")
        except (sqlite3.Error, TypeError, ValueError, OverflowError) as error:
            self._condition.saw(error)
            raise StoreUnavailable(f"The {what} cannot be read: {error}.") from error
