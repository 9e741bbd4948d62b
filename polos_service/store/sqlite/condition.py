"""Whether a SQLite store can be relied on, as far as its file has shown."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import time
from collections.abc import Awaitable, Callable
from functools import partial

from polos_client.errors import StoreUnavailable
from polos_service.errors import Fenced
from polos_service.logs import get_logger
from polos_service.store.sqlite.damage import Pages, is_damage
from polos_service.store.sqlite.file import StoreFile

RESTORE = (
    "Nothing more is stored. Stop the service, put the file or a backup in place, and start again."
)
"""What to do about a file that is gone or damaged."""

STOP_ONE = "Nothing more is stored here. Stop one of the two, or give it a store of its own."
"""What to do about another process that has the store."""

SHARE = 20
"""Looking through all pages takes at most this fraction of the time: 1 / SHARE."""

PATIENCE = 1.0
"""Seconds that a health check waits for the look through all pages."""

log = get_logger(__name__)


PROBE_PATIENCE = 1.0
"""Seconds in which a disk that failed must write again, for the store to be healthy."""


def touch(db: sqlite3.Connection) -> None:
    """Write without changing anything, to see whether the disk takes it."""
    db.execute("UPDATE owner SET token = token")


class TakenOver(StoreUnavailable, Fenced):
    """Another process owns the store now: every claim that this one held is lost."""


class Condition:
    """What is wrong with a store, if anything is.

    Attributes:
        trouble: why nothing is written any more; it stays until the process ends.
        failing: whether the last read or write met a disk error; the next may succeed.

    """

    def __init__(self, file: StoreFile) -> None:
        self.trouble: str | None = None
        self._taken_over = False
        self.failing = False
        self._file = file
        self._pages = Pages(file)
        self._loop = asyncio.get_running_loop()
        self._look: asyncio.Task[None] | None = None
        self._next_look = 0.0

    def require(self) -> None:
        """Raise StoreUnavailable if the store cannot be used, as far as is known.

        It is TakenOver if another process owns the store. Safe in any thread.
        """
        if self.trouble is not None:
            raise (TakenOver if self._taken_over else StoreUnavailable)(self.trouble)

    def inspect(self) -> None:
        """Look at the files; raise StoreUnavailable if what is committed into them is lost.

        It makes system calls, after each of which the thread that commits would wait for the
        interpreter lock: so call it in the loop.
        """
        if self.trouble is None and (fault := self._file.fault()) is not None:
            self._fail(fault)
        self.require()

    def require_owner(self, db: sqlite3.Connection) -> None:
        """Raise StoreUnavailable if another process has taken the store over."""
        row = db.execute("SELECT token FROM owner").fetchone()
        if row != (self._file.token,):
            self._taken_over = True
            self._fail(f"another process has taken over {self._file.path.name}", STOP_ONE)
            self.require()

    def explain(self, error: sqlite3.Error) -> StoreUnavailable:
        """Take note of an error of a write, and return what its caller is told."""
        self.saw(error)
        told = StoreUnavailable(f"The store refused to write: {error}.")
        told.__cause__ = error
        return told

    def saw(self, error: Exception) -> None:
        """Take note of an error that a read or a write raised."""
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF
        if is_damage(error):
            self._fail(f"{self._file.path.name} is damaged ({error})")
        elif code == sqlite3.SQLITE_IOERR and not self.failing:
            self.failing = True
            self._tell("store_disk_error", str(error))

    async def look(self) -> None:
        """Look through the file's pages if they have changed; wait PATIENCE seconds at most."""
        if self._look is None and self._pages.changed() and time.monotonic() >= self._next_look:
            self._look = asyncio.create_task(self._look_through(), name="polos-store-look")
        if self._look is not None:
            await asyncio.wait({self._look}, timeout=PATIENCE)

    async def probe(self, submit: Callable[..., Awaitable[object]]) -> None:
        """Write once, if the last read or write met a disk error; `submit` commits an operation.

        Raises:
            StoreUnavailable, TimeoutError: it still fails.

        """
        if self.failing:
            async with asyncio.timeout(PROBE_PATIENCE):
                await submit(touch)
            self.failing = False

    async def close(self) -> None:
        """Wait for the look that is under way: it needs the file."""
        if self._look is not None:
            await asyncio.wait({self._look})

    async def _look_through(self) -> None:
        begun = time.monotonic()
        try:
            damage = await asyncio.to_thread(self._pages.damage)
        except Exception:
            log.exception("store_look_failed", path=str(self._file.path))
        else:
            if damage is not None:
                self._fail(f"{self._file.path.name} is damaged ({damage})")
        finally:
            self._look = None
            self._next_look = begun + SHARE * (time.monotonic() - begun)

    def _fail(self, what: str, advice: str = RESTORE) -> None:
        if self.trouble is not None:
            return
        self.trouble = f"The store cannot be used: {what}. {advice}"
        self._tell("store_failed", what)

    def _tell(self, event: str, error: str) -> None:
        """Log in the loop: an error while logging must not end the thread that commits."""
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody listens
            self._loop.call_soon_threadsafe(
                partial(log.error, event, path=str(self._file.path), error=error)
            )
