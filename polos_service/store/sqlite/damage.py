"""Finds pages and values of rows that were overwritten behind SQLite's back."""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Sequence
from types import UnionType
from typing import Any

from polos_service.store.sqlite.file import StoreFile

CHECK_LIMIT = 256 * 1024 * 1024
"""Bytes of the largest file that is looked through, which takes about a second. Damage in a larger
file is noticed when it is read."""

IMAGE_LIMIT = 8 * 1024 * 1024
"""Bytes of the largest file that is also looked through without its write-ahead log, which hides
pages. About twice the size that the log grows to."""

LOOKS = 5
"""Looks in a row at a file that keeps changing; then it is left until the next health check."""

PAUSE = 0.05
"""Seconds between two looks: more than the resolution of the file system's clock."""

DAMAGED = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})
"""Error codes of SQLite for a file that holds something other than what SQLite wrote."""

SOUND = "ok"
"""What SQLite's check returns for a file without damage."""


class ForeignValueError(sqlite3.DatabaseError):
    """A row holds a value that was never written into it."""


class Pages:
    """The pages of a store's file, looked through again when the file has changed.

    The file's modification time tells: it changes when the write-ahead log is written back,
    and when anybody else writes into the file.
    """

    def __init__(self, file: StoreFile) -> None:
        self._file = file
        self._sound = -1

    def changed(self) -> bool:
        """Return whether the file has changed since it was last found sound."""
        status = os.fstat(self._file.descriptor)
        return status.st_mtime_ns != self._sound and status.st_size <= CHECK_LIMIT

    def damage(self) -> str | None:
        """Return what is wrong with the pages, None if nothing is. Blocks: call it in a thread.

        While the log is written back, the file may look damaged. So damage counts only if two
        looks find it, and the file did not change from before the first until after the second.

        A look that fails, for lack of file descriptors for example, is no sign of damage. The
        file still counts as changed, and is looked through again.
        """
        previous = -1
        for _ in range(LOOKS):
            now = self._time()
            try:
                found = self._through_log() or self._without_log()
            except sqlite3.Error:
                return None
            if found is None:
                self._sound = now
                return None
            if now == previous == self._time():
                return found
            previous = now
            time.sleep(PAUSE)
        return None

    def _time(self) -> int:
        return os.fstat(self._file.descriptor).st_mtime_ns

    def _through_log(self) -> str | None:
        # A connection of its own: others have the pages in their caches.
        return verdict(sqlite3.connect(f"{self._file.path.as_uri()}?mode=rw", uri=True))

    def _without_log(self) -> str | None:
        size = os.fstat(self._file.descriptor).st_size
        if size > IMAGE_LIMIT:
            return None
        image = bytearray(os.pread(self._file.descriptor, size, 0))
        image[18:20] = b"\1\1"  # "has no write-ahead log"
        db = sqlite3.connect(":memory:")
        db.deserialize(bytes(image))
        return verdict(db)


def verdict(db: sqlite3.Connection) -> str | None:
    """Return what SQLite finds wrong with a database, None if nothing; close the database.

    Raises:
        sqlite3.Error: SQLite cannot tell, for a reason other than damage.

    """
    try:
        (found,) = db.execute("PRAGMA quick_check(1)").fetchone()
    except sqlite3.Error as error:
        if not is_damage(error):
            raise
        return str(error)
    finally:
        db.close()
    return None if found == SOUND else str(found).rpartition("\n")[2]


def is_damage(error: BaseException) -> bool:
    """Return whether the error says that the file holds something other than what was written."""
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    return code in DAMAGED or isinstance(error, ForeignValueError)


def fitting(row: Sequence[Any], *types: type | UnionType) -> Sequence[Any]:
    """Return the row, of which each value has been checked to have its type.

    Raises:
        ForeignValueError: a value has another type.

    """
    for value, kind in zip(row, types, strict=True):
        if not isinstance(value, kind):
            expected = kind.__name__ if isinstance(kind, type) else kind
            raise ForeignValueError(f"a row holds {type(value).__name__} instead of {expected}")
    return row
