"""Bugs seeded on purpose: a harness that finds none of them proves nothing.

Each is planted in the service's process, by `chaos.launch`, around or in the place of the
product's functions. The harness must fail with any of them.
"""

from __future__ import annotations

import itertools
import sqlite3
import time
from dataclasses import replace
from typing import Any

from chaos.faults import Bug, Original, around
from chaos.people_bugs import PEOPLE_BUGS
from chaos.places import Place
from chaos.tree_bugs import TREE_BUGS
from polos.v1.event_pb2 import Event
from polos.v1.run_service_pb2 import StreamRunResponse
from polos_service.errors import Fenced
from polos_service.runs.executor import Executor
from polos_service.runs.journal import Journal
from polos_service.runs.stepping import Stepping
from polos_service.store import Claim, Frame, NewRun
from polos_service.store.sqlite import SqliteStore, claims, runs
from polos_service.store.sqlite.committer import Committer
from polos_service.store.sqlite.spool import Spool
from polos_service.store.wakeups import Wakeups

SEEN = 0.03
"""Seconds in which a reader gets what it is woken for, on a machine that is busy."""


def notify_before_commit() -> None:
    """Wake readers, and let them see what is written, before it is committed."""

    def transact(committer: Any, batch: list[Any]) -> None:
        db = committer._db  # noqa: SLF001
        db.execute("BEGIN IMMEDIATE")
        for job in batch:
            job.perform(db)
            if job.committed is not None:
                committer._loop.call_soon_threadsafe(job.committed, job.result)  # noqa: SLF001
        committer._spool.write(db)  # noqa: SLF001
        if any(job.committed is not None for job in batch):
            time.sleep(SEEN)
        db.execute("COMMIT")
        committer._spool.keep()  # noqa: SLF001

    @around(Committer, "_transact")
    def _(_original: Original, *args: Any) -> None:
        transact(*args)

    @around(SqliteStore, "__init__")
    def _(original: Original, store: Any, *args: Any) -> None:
        original(store, *args)
        store._reading._db = store._db  # noqa: SLF001 - it sees the transaction that it has open


def reused_sequence() -> None:
    """Number the first event of a new claim as the last one of the old."""

    @around(claims, "begin_claim")
    def _(original: Original, *args: Any) -> Claim | None:
        claim: Claim | None = original(*args)
        return claim and replace(claim, latest=max(0, claim.latest - 1))

    written_despite(ValueError)


def skipped_fence() -> None:
    """Take the appends of a claim that was lost."""
    written_despite(Fenced, ValueError)


def written_despite(*errors: type[Exception]) -> None:
    """Write a frame although the store refuses it."""

    @around(Spool, "append")
    def _(original: Original, spool: Any, db: Any, *append: Any) -> None:
        claim, frame, private = append
        try:
            original(spool, db, *append)
        except errors:
            spool.let_go(db, claim.project, claim.run_id)
            run, _ = runs.row_of(db, claim.project, claim.run_id)
            write(db, run, frame, private)
            if frame.outcome is not None:
                db.execute("UPDATE runs SET state = ? WHERE id = ?", (frame.outcome, run))


def write(db: sqlite3.Connection, run: int, frame: Frame, private: bytes) -> None:
    """Write a frame, whatever the log holds and whoever has the claim."""
    db.execute(
        "INSERT INTO frames (run, first, last, data, private) VALUES (?, ?, ?, ?, ?)",
        (run, frame.first, frame.last, frame.data, private),
    )


def lost_wakeup() -> None:
    """Forget to wake a run's readers, each third time."""
    count = itertools.count(1)

    @around(Wakeups, "notify")
    def _(original: Original, wakeups: Wakeups, key: Any) -> None:
        if key[0] != "log" or next(count) % 3:
            original(wakeups, key)


def doubled_terminal() -> None:
    """Write the terminal event twice."""

    @around(Spool, "append")
    def _(original: Original, spool: Any, db: Any, *append: Any) -> None:
        claim, frame, _private = append
        original(spool, db, *append)
        if frame.outcome is not None:
            run, _ = runs.row_of(db, claim.project, claim.run_id)
            again = Event()
            again.CopyFrom(StreamRunResponse.FromString(frame.data).events[-1])
            again.sequence = frame.last + 1
            data = StreamRunResponse(events=[again]).SerializeToString()
            write(db, run, Frame(first=again.sequence, last=again.sequence, data=data), b"")


def dropped_claim() -> None:
    """Claim each fourth run and forget about it."""
    count = itertools.count(1)

    @around(Executor, "_hold")
    async def _(original: Original, *args: Any) -> None:
        if next(count) % 4:
            await original(*args)


def finished_step_again() -> None:
    """Forget, on recovery, that tools have finished."""

    @around(Journal, "add")
    def _(original: Original, journal: Journal, event: Event) -> None:
        if event.step_finish.step_type != "tool":
            original(journal, event)


def second_start() -> None:
    """Take a start that is repeated with its request id for a new one."""

    @around(runs, "insert_run")
    def _(original: Original, db: Any, run: NewRun, *more: Any) -> Any:
        return original(db, replace(run, request_id=None), *more)


def silent_retry() -> None:
    """Begin a step anew without taking back what it has said."""

    @around(Stepping, "_announce")
    def _(_original: Original, *_args: Any) -> None:
        pass


BUGS: dict[str, Bug] = {
    "notify-before-commit": Bug(
        "readers see what is not committed", notify_before_commit, Place.COMMIT
    ),
    "reused-sequence": Bug("a sequence is used twice", reused_sequence, Place.MID_DELTA),
    "skipped-fence": Bug("a writer that lost its claim goes on", skipped_fence, Place.STOLEN),
    "lost-wake-up": Bug("a reader is not told of an event", lost_wakeup, Place.KILL),
    "doubled-terminal": Bug("a run ends twice", doubled_terminal, Place.KILL),
    "dropped-claim": Bug("a claimed run is forgotten", dropped_claim, Place.KILL),
    "finished-step-again": Bug("a finished tool runs again", finished_step_again, Place.STEP_END),
    "second-start": Bug(
        "a start that is repeated makes a second run", second_start, Place.START_ACK
    ),
    "silent-retry": Bug("what is said again is not taken back", silent_retry, Place.MID_DELTA),
    **PEOPLE_BUGS,
    **TREE_BUGS,
}
"""The bugs by name."""
