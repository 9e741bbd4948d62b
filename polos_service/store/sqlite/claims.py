"""Claims in SQLite: who may write a run's log."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial

from polos_client.errors import StoreUnavailable
from polos_service.cancelling import seen
from polos_service.store import Claim, Overdue
from polos_service.store.sqlite.committer import Committer
from polos_service.store.sqlite.damage import fitting
from polos_service.store.sqlite.inbox import commands_after
from polos_service.store.sqlite.log import HELD, LEFT, NEWEST_MARK, insert_mark, left_in
from polos_service.store.sqlite.open_runs import OpenRuns
from polos_service.store.sqlite.runs import PARENT, PARENT_TYPES, parent_in
from polos_service.store.sqlite.schema import QUEUED, RUNNING
from polos_service.store.sqlite.spool import Spool
from polos_service.store.sqlite.tails import Tails
from polos_service.store.wakeups import Wakeups

ROOM = "room"
"""The key of the wake-up when runs have left the queue."""

OVERDUE_LIMIT = 100
"""Overdue runs that one look finds, of the queued and of the held each."""


def find_run(db: sqlite3.Connection, project: str, run_id: str, *, held: bool) -> list[int]:
    """Return the row of this run, if it is queued, or with `held` if somebody holds it."""
    rows = db.execute(
        "SELECT id FROM runs WHERE project = ? AND run_id = ? AND state IN (?, ?)",
        (project, run_id, QUEUED, RUNNING if held else QUEUED),
    )
    return [int(row) for (row,) in rows]


def begin_claim(db: sqlite3.Connection, spool: Spool, run: int, writer: str) -> Claim:
    """Take the run with a greater epoch, and append the claim frame."""
    row = db.execute(
        "UPDATE runs SET state = ?, epoch = epoch + 1, start_time = coalesce(start_time, ?) "
        "WHERE id = ? "
        "RETURNING project, run_id, workflow_id, epoch, create_time, deadline, definition, "
        f"{NEWEST_MARK}, {PARENT}",
        (RUNNING, time.time_ns(), run),
    ).fetchone()
    project, run_id, workflow_id, epoch, create_time, deadline, definition, newest = fitting(
        row[: -len(PARENT_TYPES)], str, str, str, int, int, int | None, bytes, bytes | None
    )
    spool.let_go(db, project, run_id)
    mark: dict[str, object] = {"epoch": epoch, "writer": writer}
    if left := left_in(newest):
        mark[LEFT] = left
    latest = insert_mark(db, run, {"claim": mark})
    claim = Claim(
        project=project,
        run_id=run_id,
        workflow_id=workflow_id,
        epoch=epoch,
        latest=latest,
        create_time=create_time,
        deadline=deadline,
        definition=definition,
        commands=commands_after(db, run, 0),
        parent=parent_in(row[-len(PARENT_TYPES) :]),
    )
    spool.hold(claim, run)
    return claim


def requeue(
    db: sqlite3.Connection, spool: Spool, claim: Claim, *, failed: bool, left: str = ""
) -> bool:
    """Queue the run, if the claim still holds, and mark in the log that it was let go.

    Returns whether it held.
    """
    spool.let_go(db, claim.project, claim.run_id)
    row = db.execute(
        f"UPDATE runs SET state = {QUEUED:d} WHERE {HELD} RETURNING id",
        (claim.project, claim.run_id, claim.epoch),
    ).fetchone()
    if row is not None:
        mark: dict[str, object] = {"epoch": claim.epoch}
        if failed:
            mark["failed"] = True
        if left:
            mark[LEFT] = left
        insert_mark(db, row[0], {"released": mark})
    return row is not None


def overdue(db: sqlite3.Connection, now: int, stuck: int) -> list[Overdue]:
    """Return queued runs due by `now`, and held ones due by `stuck`; a cancelled run is due."""
    found: list[Overdue] = []
    for state, due, index in ((QUEUED, now, "runs_due"), (RUNNING, stuck, "runs_stuck")):
        rows = db.execute(
            f"SELECT project, run_id FROM runs INDEXED BY {index} WHERE state = {state:d} "
            "AND deadline IS NOT NULL AND deadline <= ? ORDER BY deadline LIMIT ?",
            (due, OVERDUE_LIMIT),
        )
        found += [
            Overdue(project=project, run_id=run_id, held=state == RUNNING)
            for project, run_id in rows
        ]
    return found


class Claims:
    """Takes claims, and gives them back."""

    def __init__(
        self,
        committer: Committer,
        spool: Spool,
        tails: Tails,
        open_runs: OpenRuns,
        wakeups: Wakeups,
    ) -> None:
        self._committer = committer
        self._spool = spool
        self._tails = tails
        self._open = open_runs
        self._wakeups = wakeups
        self._writer = f"{os.uname().nodename}:{os.getpid()}"

    async def take(self, find: Callable[[sqlite3.Connection], Sequence[int]]) -> Sequence[Claim]:
        """Claim the rows of runs that are found, in the commit in which they are."""
        claiming: asyncio.Future[Sequence[Claim]] = self._committer.submit(
            lambda db: [begin_claim(db, self._spool, r, self._writer) for r in find(db)],
            self._claimed,
        )
        try:
            return await asyncio.shield(claiming)
        except asyncio.CancelledError:
            # The commit is under way all the same, and nobody would ever hold those claims.
            claiming.add_done_callback(self._give_back)
            raise

    def requeue(
        self, held: Sequence[Claim], *, failed: bool, left: str = ""
    ) -> asyncio.Future[Sequence[Claim]]:
        """Queue the runs of those claims again that still hold."""
        queued = partial(requeue, failed=failed, left=left)
        return self._committer.submit(
            lambda db: [c for c in held if queued(db, self._spool, c)],
            self._released,
        )

    def _claimed(self, found: Sequence[Claim]) -> None:
        for claim in found:
            self._tails.drop((claim.project, claim.run_id))
            self._open.claimed(claim)
        if found:
            self._wakeups.notify(ROOM)

    def _give_back(self, claiming: asyncio.Future[Sequence[Claim]]) -> None:
        if not (claiming.cancelled() or claiming.exception()):
            with suppress(StoreUnavailable):  # closed: the next process queues the runs
                self.requeue(claiming.result(), failed=False).add_done_callback(seen)

    def _released(self, released: Sequence[Claim]) -> None:
        for claim in released:
            self._tails.drop((claim.project, claim.run_id))
            self._open.left((claim.project, claim.run_id))
        self._wakeups.notify("queue")
