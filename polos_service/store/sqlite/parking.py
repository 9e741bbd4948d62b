"""Suspended runs in SQLite: parked by their holder, queued again by a command or at their time."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Coroutine
from time import time_ns
from typing import Any

from polos_client.errors import StoreUnavailable
from polos_service.cancelling import cancel_until_done
from polos_service.errors import Fenced
from polos_service.logs import get_logger
from polos_service.store import PARKED, Claim
from polos_service.store.sqlite.log import HELD, insert_mark
from polos_service.store.sqlite.schema import QUEUED, SUSPENDED
from polos_service.store.sqlite.spool import Spool

WAKE_LIMIT = 256
"""Runs that one commit wakes at most."""

LOOK = 1.0
"""Seconds after which the clock is looked at again, in case it was set."""

SECOND = 1_000_000_000
"""Nanoseconds in a second."""

log = get_logger(__name__)


def suspend(
    db: sqlite3.Connection,
    spool: Spool,
    claim: Claim,
    *,
    wake_at: int | None,
    seen: int,
    deadline: int | None,
) -> bool:
    """Suspend the claim's run, unless its inbox holds more than `seen` commands.

    It is woken at its deadline at the latest, to end there.

    Raises:
        Fenced: the claim was lost, or the run has ended.

    """
    held = (claim.project, claim.run_id, claim.epoch)
    row = db.execute(f"SELECT id FROM runs WHERE {HELD}", held).fetchone()
    if row is None:
        raise Fenced(f"The claim {claim.epoch} on run {claim.run_id} was lost.")
    (run,) = row
    (count,) = db.execute("SELECT count(*) FROM inbox WHERE run = ?", (run,)).fetchone()
    if count > seen:
        return False
    spool.let_go(db, claim.project, claim.run_id)
    db.execute(
        f"UPDATE runs SET state = {SUSPENDED:d}, wake_time = ?, deadline = ? WHERE id = ?",
        (earliest(wake_at, deadline), deadline, run),
    )
    insert_mark(db, run, {"released": {"epoch": claim.epoch, PARKED: True}})
    return True


def earliest(*times: int | None) -> int | None:
    """Return the first of these times; None if there is none."""
    return min((one for one in times if one is not None), default=None)


def wake(db: sqlite3.Connection, run: int) -> bool:
    """Queue a run again, if it is suspended; return whether it was."""
    cursor = db.execute(
        f"UPDATE runs SET state = {QUEUED:d}, wake_time = NULL "
        f"WHERE id = ? AND state = {SUSPENDED:d}",
        (run,),
    )
    return cursor.rowcount > 0


def wake_run(db: sqlite3.Connection, project: str, run_id: str) -> bool:
    """Queue a run again, if it is suspended; return whether it was."""
    row = db.execute(
        "SELECT id FROM runs WHERE project = ? AND run_id = ?", (project, run_id)
    ).fetchone()
    return row is not None and wake(db, *row)


def wake_due(db: sqlite3.Connection, now: int) -> int | None:
    """Queue runs whose time has come again; return when the next one's comes, None: never."""
    db.execute(
        f"UPDATE runs SET state = {QUEUED:d}, wake_time = NULL WHERE id IN ("
        f"SELECT id FROM runs WHERE state = {SUSPENDED:d} AND wake_time <= ? "
        "ORDER BY wake_time LIMIT ?)",
        (now, WAKE_LIMIT),
    )
    return next_wake(db)


def next_wake(db: sqlite3.Connection) -> int | None:
    """Return when the first suspended run is to be queued again; None: none has a time."""
    (found,) = db.execute(
        f"SELECT min(wake_time) FROM runs WHERE state = {SUSPENDED:d} AND wake_time IS NOT NULL"
    ).fetchone()
    return None if found is None else int(found)


class Waker:
    """Queues suspended runs again when their time has come."""

    def __init__(
        self, wake: Callable[[int], Coroutine[Any, Any, int | None]], first: int | None
    ) -> None:
        """Begin to wake.

        Args:
            wake: queues the runs that are due at a time, and returns when the next one is.
            first: when the first run is due; None: there is none.

        """
        self._wake = wake
        self._next = first
        self._sooner = asyncio.Event()
        self._task = asyncio.create_task(self._run(), name="polos-wake")

    def suspended(self, wake_at: int | None) -> None:
        """Take note of a run that is due at a time."""
        if wake_at is not None and (self._next is None or wake_at < self._next):
            self._next = wake_at
            self._sooner.set()

    async def close(self) -> None:
        """Wake nothing more."""
        await cancel_until_done({self._task})

    async def _run(self) -> None:
        while True:
            await self._until_due()
            now = time_ns()
            self._next = None  # from here on `suspended` tells what comes
            found: int | None = now
            try:
                found = await self._wake(now)
            except StoreUnavailable as error:
                log.warning("wake_failed", error=str(error))
                await asyncio.sleep(LOOK)
            except Exception:
                log.exception("wake_failed")
                await asyncio.sleep(LOOK)
            self.suspended(found)

    async def _until_due(self) -> None:
        while self._next is None or (left := self._next - time_ns()) > 0:
            self._sooner.clear()
            pause = None if self._next is None else min(LOOK, left / SECOND)
            try:
                async with asyncio.timeout(pause):
                    await self._sooner.wait()
            except TimeoutError:
                pass
