"""The SQL of the SQLite store: one function for each change of a run, and each look at it."""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import NoReturn

from polos.v1.run_pb2 import RunState
from polos_service.errors import Fenced
from polos_service.store import (
    CANCEL,
    ENDED,
    INBOX_BYTES,
    INBOX_LIMIT,
    Claim,
    Command,
    Entry,
    Frame,
    NewRun,
    RunQuery,
    RunRecord,
)
from polos_service.store.refusals import (
    expired,
    inbox_full,
    not_finished,
    not_found,
    reused,
    too_many,
)
from polos_service.store.sqlite.damage import ForeignValueError, fitting
from polos_service.store.sqlite.schema import EXPIRED, EXPIRING, QUEUED, REMOVING, RUNNING

LATEST = "(SELECT coalesce(max(last), 0) FROM frames WHERE run = runs.id)"
RECORD = (
    "run_id, workflow_id, state, session_id, user_id, streaming, "
    f"create_time, start_time, finish_time, {LATEST}"
)
STATES = frozenset(RunState.values())
RECORD_TYPES = (
    *(str, str, int, str | None, str | None, int),
    *(int, int | None, int | None, int),
)

REMOVED_BYTES = 1024 * 1024
"""Bytes of a log that are deleted in one commit, or a frame more: it delays nobody for long."""


def insert_run(db: sqlite3.Connection, run: NewRun, most: int) -> str:
    """Insert a run, unless its request id made one before; return that run's id."""
    if run.request_id is not None:
        row = db.execute(
            "SELECT run_id, digest FROM runs WHERE project = ? AND request_id = ?",
            (run.project, run.request_id),
        ).fetchone()
        if row is not None:
            return same_run(run, *row)
    if queued(db, most) == most:
        raise too_many(most)
    db.execute(
        "INSERT INTO runs (project, run_id, workflow_id, state, epoch, session_id, user_id, "
        "streaming, create_time, deadline, request_id, digest, definition) "
        "VALUES (?, ?, ?, ?, 0, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            run.project,
            run.run_id,
            run.workflow_id,
            QUEUED,
            run.session_id,
            run.user_id,
            run.streaming,
            run.create_time,
            run.deadline,
            run.request_id,
            run.digest,
            run.definition,
        ),
    )
    return run.run_id


def same_run(run: NewRun, run_id: str, digest: bytes) -> str:
    """Return the id of the run that the request id made, if its payload is the same."""
    if digest != run.digest:
        raise reused(str(run.request_id), run_id)
    return run_id


def queued(db: sqlite3.Connection, most: int) -> int:
    """Return how many runs are queued, counted up to `most`."""
    row = db.execute(
        f"SELECT count(*) FROM (SELECT 1 FROM runs WHERE state = {QUEUED:d} LIMIT ?)", (most,)
    ).fetchone()
    return int(row[0])


def find_queued(db: sqlite3.Connection, workflows: Collection[str]) -> int | None:
    """Return the row of the oldest queued run of these workflows."""
    row = db.execute(
        f"SELECT id FROM runs WHERE state = {QUEUED:d} "
        "AND workflow_id IN (SELECT value FROM json_each(?)) ORDER BY id LIMIT 1",
        (json.dumps(list(workflows)),),
    ).fetchone()
    return None if row is None else int(row[0])


def find_run(db: sqlite3.Connection, project: str, run_id: str, *, held: bool) -> int | None:
    """Return the row of this run, if it is queued, or with `held` if somebody holds it."""
    row = db.execute(
        "SELECT id FROM runs WHERE project = ? AND run_id = ? AND state IN (?, ?)",
        (project, run_id, QUEUED, RUNNING if held else QUEUED),
    ).fetchone()
    return None if row is None else int(row[0])


def waiting(db: sqlite3.Connection) -> dict[str, int]:
    """Return how many runs are queued, by workflow."""
    return dict(
        db.execute(
            f"SELECT workflow_id, count(*) FROM runs WHERE state = {QUEUED:d} GROUP BY workflow_id"
        )
    )


def overdue(db: sqlite3.Connection, now: int, stuck: int) -> list[tuple[str, str]]:
    """Return project and id of queued runs due by `now`, and of held ones due by `stuck`."""
    found: list[tuple[str, str]] = []
    for state, due in ((QUEUED, now), (RUNNING, stuck)):
        found += db.execute(
            f"SELECT project, run_id FROM runs WHERE state = {state:d} "
            "AND deadline IS NOT NULL AND deadline <= ? ORDER BY deadline LIMIT 100",
            (due,),
        )
    return found


def begin_claim(db: sqlite3.Connection, run: int | None, writer: str) -> Claim | None:
    """Take the run with a greater epoch, and append the claim frame."""
    if run is None:
        return None
    row = db.execute(
        "UPDATE runs SET state = ?, epoch = epoch + 1, start_time = coalesce(start_time, ?) "
        "WHERE id = ? "
        "RETURNING project, run_id, workflow_id, epoch, create_time, deadline, definition",
        (RUNNING, time.time_ns(), run),
    ).fetchone()
    project, run_id, workflow_id, epoch, create_time, deadline, definition = fitting(
        row, str, str, str, int, int, int | None, bytes
    )
    latest = write_mark(db, run, {"claim": {"epoch": epoch, "writer": writer}})
    return Claim(
        project=project,
        run_id=run_id,
        workflow_id=workflow_id,
        epoch=epoch,
        latest=latest,
        create_time=create_time,
        deadline=deadline,
        definition=definition,
        commands=commands_after(db, run, 0),
    )


def requeue(db: sqlite3.Connection, claim: Claim, *, failed: bool) -> None:
    """Queue the run, if the claim still holds, and mark in the log that it was let go."""
    row = db.execute(
        "UPDATE runs SET state = ? WHERE project = ? AND run_id = ? AND epoch = ? AND state = ? "
        "RETURNING id",
        (QUEUED, claim.project, claim.run_id, claim.epoch, RUNNING),
    ).fetchone()
    if row is not None:
        mark = {"epoch": claim.epoch, "failed": True} if failed else {"epoch": claim.epoch}
        write_mark(db, row[0], {"released": mark})


def insert_frame(db: sqlite3.Connection, claim: Claim, frame: Frame, private: bytes) -> None:
    """Append a frame, if the claim still holds and the frame is the next one."""
    inserted = db.execute(
        "INSERT INTO frames (run, first, last, data, private) SELECT id, ?, ?, ?, ? FROM runs "
        f"WHERE project = ? AND run_id = ? AND epoch = ? AND state = {RUNNING:d} "
        f"AND {LATEST} + 1 = ? AND ? >= ?",
        (
            frame.first,
            frame.last,
            frame.data,
            private,
            claim.project,
            claim.run_id,
            claim.epoch,
            frame.first,
            frame.last,
            frame.first,
        ),
    ).rowcount
    if inserted != 1:
        refuse_frame(db, claim, frame)
    if frame.outcome is not None:
        db.execute(
            "UPDATE runs SET state = ?, finish_time = ? WHERE project = ? AND run_id = ?",
            (frame.outcome, time.time_ns(), claim.project, claim.run_id),
        )


def refuse_frame(db: sqlite3.Connection, claim: Claim, frame: Frame) -> NoReturn:
    """Raise why a frame cannot be appended."""
    row = db.execute(
        f"SELECT {LATEST} FROM runs "
        f"WHERE project = ? AND run_id = ? AND epoch = ? AND state = {RUNNING:d}",
        (claim.project, claim.run_id, claim.epoch),
    ).fetchone()
    if row is None:
        raise Fenced(f"The claim {claim.epoch} on run {claim.run_id} was lost.")
    raise ValueError(
        f"A frame of events {frame.first} to {frame.last} cannot follow event {row[0]}."
    )


def write_frame(db: sqlite3.Connection, run: int, frame: Frame, private: bytes) -> None:
    """Insert the frame's row."""
    db.execute(
        "INSERT INTO frames (run, first, last, data, private) VALUES (?, ?, ?, ?, ?)",
        (run, frame.first, frame.last, frame.data, private),
    )


def write_mark(db: sqlite3.Connection, run: int, mark: Mapping[str, object]) -> int:
    """Append a frame without events to the run's log; return the newest sequence."""
    latest = latest_of(db, run)
    line = json.dumps(mark).encode() + b"\n"
    write_frame(db, run, Frame(first=latest + 1, last=latest, data=b""), line)
    return latest


def insert_command(db: sqlite3.Connection, project: str, run_id: str, command: Command) -> None:
    """Put a command last into the run's inbox, unless it is there or the run has ended."""
    run, state = row_of(db, project, run_id)
    if state in ENDED:
        return
    inserted = db.execute(
        "INSERT OR IGNORE INTO commands (run, command_id, kind, run_id, step_key, payload) "
        "VALUES (?, ?, ?, ?, ?, ?)",
        (run, command.id, command.kind, command.run_id, command.step_key, command.payload),
    ).rowcount
    if inserted and command.id != CANCEL:
        count, size = db.execute(
            "SELECT count(*), sum(length(payload)) FROM commands WHERE run = ? AND command_id != ?",
            (run, CANCEL),
        ).fetchone()
        if count > INBOX_LIMIT or size > INBOX_BYTES:
            raise inbox_full(run_id)


def begin_removal(db: sqlite3.Connection, project: str, run_id: str) -> int:
    """Hide a run that has ended from everybody, its request id too; return its row."""
    run, state = row_of(db, project, run_id)
    if state not in ENDED:
        raise not_finished(run_id)
    db.execute(
        f"UPDATE runs SET state = {REMOVING}, definition = x'', request_id = NULL WHERE id = ?",
        (run,),
    )
    return run


def remove(db: sqlite3.Connection, run: int, piece: int) -> bool:
    """Remove a piece of a run that is being removed; False if nothing is left of it."""
    if remove_frames(db, run, piece):
        return True
    db.execute("DELETE FROM commands WHERE run = ?", (run,))
    db.execute(f"DELETE FROM runs WHERE id = ? AND state = {REMOVING}", (run,))
    return False


def touch(db: sqlite3.Connection) -> None:
    """Write without a change, to see whether the disk does what it is told."""
    db.execute("UPDATE owner SET token = token")


def removals(db: sqlite3.Connection) -> list[int]:
    """Return the rows of runs whose removal has begun."""
    return [row for (row,) in db.execute(f"SELECT id FROM runs WHERE state = {REMOVING}")]


def remove_frames(db: sqlite3.Connection, run: int, piece: int) -> bool:
    """Delete at most `piece` frames, and not many bytes; return whether there may be more."""
    rows = []
    size = 0
    for row, length in db.execute(
        "SELECT id, length(data) + length(private) FROM frames WHERE run = ? LIMIT ?", (run, piece)
    ):
        rows.append(row)
        size += length
        if size >= REMOVED_BYTES:
            break
    db.execute(
        "DELETE FROM frames WHERE id IN (SELECT value FROM json_each(?))", (json.dumps(rows),)
    )
    return size >= REMOVED_BYTES or len(rows) == piece


def expire(db: sqlite3.Connection, before: int, piece: int) -> bool:
    """Remove a piece of a run that ended before a time; False if there is nothing to remove.

    The tombstone comes first, so that nobody reads half a log.
    """
    row = db.execute(f"SELECT id FROM runs WHERE state = {EXPIRING} LIMIT 1").fetchone()
    if row is None:
        row = db.execute(
            f"UPDATE runs SET state = {EXPIRING}, definition = x'' WHERE id = (SELECT id FROM runs "
            f"WHERE finish_time < ? AND finish_time IS NOT NULL AND state < {EXPIRING} "
            "ORDER BY finish_time LIMIT 1) RETURNING id",
            (before,),
        ).fetchone()
    if row is None:
        return False
    if not remove_frames(db, row[0], piece):
        db.execute("DELETE FROM commands WHERE run = ?", row)
        db.execute(f"UPDATE runs SET state = {EXPIRED} WHERE id = ?", row)
    return True


def row_of(db: sqlite3.Connection, project: str, run_id: str) -> tuple[int, int]:
    """Return row and state of a run that must exist."""
    row = db.execute(
        "SELECT id, state FROM runs WHERE project = ? AND run_id = ?", (project, run_id)
    ).fetchone()
    if row is None:
        raise not_found(run_id)
    run, state = fitting(row, int, int)
    if state == REMOVING:
        raise not_found(run_id)
    if state >= EXPIRING:
        raise expired(run_id)
    return run, state


def latest_of(db: sqlite3.Connection, run: int) -> int:
    """Return the newest sequence in the run's log, 0 if it is empty."""
    row = db.execute("SELECT coalesce(max(last), 0) FROM frames WHERE run = ?", (run,)).fetchone()
    return int(row[0])


def commands_after(db: sqlite3.Connection, run: int, seen: int) -> tuple[Command, ...]:
    """Return the commands in the run's inbox behind the first `seen`, in order of arrival."""
    found = []
    for row in db.execute(
        "SELECT command_id, kind, run_id, step_key, payload FROM commands WHERE run = ? "
        "ORDER BY id LIMIT -1 OFFSET ?",
        (run, seen),
    ):
        command_id, kind, run_id, step_key, payload = fitting(row, str, str, str, str, bytes)
        found.append(
            Command(id=command_id, kind=kind, run_id=run_id, step_key=step_key, payload=payload)
        )
    return tuple(found)


def frames_after(db: sqlite3.Connection, run: int, after: int) -> Iterator[Frame]:
    """Yield the frames that hold events after the cursor; claim frames hold none."""
    following = after + 1
    for row in db.execute(
        "SELECT first, last, data FROM frames WHERE run = ? AND last > ? ORDER BY last, id",
        (run, after),
    ):
        first, last, data = fitting(row, int, int, bytes)
        if first > last:
            continue
        if first > following:
            raise ForeignValueError(f"events {following} to {first - 1} are missing")
        following = last + 1
        yield Frame(first=first, last=last, data=data)


def history_page(
    db: sqlite3.Connection, run: int, place: tuple[int, int], limit: int
) -> tuple[tuple[int, int], list[Entry]]:
    """Return the entries behind a place in the log, `limit` bytes or a little more, and theirs."""
    page = []
    size = 0
    for found in db.execute(
        "SELECT last, id, data, private FROM frames WHERE run = ? AND (last, id) > (?, ?) "
        "ORDER BY last, id",
        (run, *place),
    ):
        last, row, data, private = fitting(found, int, int, bytes, bytes)
        page.append(Entry(data=data, private=private))
        place = (last, row)
        size += len(data) + len(private)
        if size >= limit:
            break
    return place, page


def record_of(db: sqlite3.Connection, project: str, run_id: str) -> RunRecord:
    """Return the record of a run that must exist."""
    run, _ = row_of(db, project, run_id)
    return to_record(db.execute(f"SELECT {RECORD} FROM runs WHERE id = ?", (run,)).fetchone())


def records(db: sqlite3.Connection, project: str, query: RunQuery) -> list[RunRecord]:
    """Return the records that the query asks for."""
    conditions = {
        "project = ?": project,
        "run_id < ?": query.before,
        "workflow_id = ?": query.workflow_id,
        "state = ?": query.state,
        "session_id = ?": query.session_id,
        "user_id = ?": query.user_id,
        "create_time >= ?": query.created_from,
        "create_time < ?": query.created_before,
    }
    given = {term: value for term, value in conditions.items() if value is not None}
    rows = db.execute(
        f"SELECT {RECORD} FROM runs WHERE +state < {EXPIRING} AND {' AND '.join(given)} "
        "ORDER BY run_id DESC LIMIT ?",
        (*given.values(), query.limit),
    )
    return [to_record(row) for row in rows]


def to_record(row: Sequence[object]) -> RunRecord:
    """Build a record from a row of the columns in RECORD."""
    values = dict(zip(RunRecord.__dataclass_fields__, fitting(row, *RECORD_TYPES), strict=True))
    if values["state"] not in STATES:
        raise ForeignValueError(f"a run has the state {values['state']}")
    values["streaming"] = bool(values["streaming"])
    return RunRecord(**values)
