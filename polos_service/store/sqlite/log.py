"""A run's log in SQLite: frames, marks of claims, and reading both."""

from __future__ import annotations

import json
import sqlite3
from collections import Counter
from collections.abc import Iterable, Mapping
from itertools import chain
from typing import NamedTuple

from polos_service.store import Entry, Frame
from polos_service.store.sqlite.damage import ForeignValueError, fitting
from polos_service.store.sqlite.schema import ANY, RUNNING
from polos_service.store.sqlite.usage import add_stored

HELD = f"project = ? AND run_id = ? AND epoch = ? AND state = {RUNNING:d}"
"""SQL for the row of a run whose claim still holds."""

TOGETHER = 64
"""Rows that one statement inserts at most."""


NOBODY: frozenset[int] = frozenset()
"""The branches of frames in which no child has events."""


class Row(NamedTuple):
    """A row of frames, which follow each other, with the branches that have events in it."""

    run: int
    first: int
    last: int
    data: bytes
    private: bytes
    branches: frozenset[int] | None


def insert_rows(db: sqlite3.Connection, rows: Iterable[Row]) -> None:
    """Insert rows of frames, so that each of their branches finds them.

    One statement inserts many: each time that SQLite returns, the thread waits for its turn.
    """
    left = list(rows)
    if not left:
        return
    sizes: Counter[int] = Counter()
    for one in left:
        sizes[one.run] += len(one.data) + len(one.private)
    add_stored(db, sizes)
    for at in range(0, len(left), TOGETHER):
        some = left[at : at + TOGETHER]
        db.execute(
            "INSERT INTO frames (run, first, last, data, private) VALUES "
            + ", ".join(["(?, ?, ?, ?, ?)"] * len(some)),
            tuple(chain.from_iterable(one[:5] for one in some)),
        )
    if branched := [one for one in left if one.branches != NOBODY]:
        insert_branches(db, branched)


def insert_branches(db: sqlite3.Connection, rows: Iterable[Row]) -> None:
    """Let rows of frames be found by the branches that have events in them."""
    found = [(one.run, one.last, [*(one.branches or (ANY,))]) for one in rows]
    db.execute(
        "INSERT INTO branches (run, number, last) SELECT json_extract(row.value, '$[0]'), "
        "number.value, json_extract(row.value, '$[1]') "
        "FROM json_each(?) AS row, json_each(row.value, '$[2]') AS number",
        (json.dumps(found),),
    )


def insert_mark(db: sqlite3.Connection, run: int, mark: Mapping[str, object]) -> int:
    """Append a frame without events, whose private line is the mark; return the newest sequence."""
    latest = latest_of(db, run)
    db.execute(
        "INSERT INTO frames (run, first, last, data, private) VALUES (?, ?, ?, x'', ?)",
        (run, latest + 1, latest, json.dumps(mark).encode() + b"\n"),
    )
    return latest


LEFT = "left"
"""The member of a mark that says why a run was left. A claim hands it on, so that it stands in the
newest row of the log until an event follows."""

NEWEST_MARK = (
    "(SELECT CASE WHEN first > last THEN private END FROM frames WHERE run = runs.id "
    "ORDER BY last DESC, id DESC LIMIT 1)"
)
"""SQL for the private line of the newest row of a run's log, if it is a mark; else NULL."""


def left_in(mark: bytes | None) -> str:
    """Return why a run was left whose newest row is this mark; empty if it was not."""
    if mark is None or f'"{LEFT}"'.encode() not in mark:
        return ""
    (found,) = json.loads(mark).values()
    return str(found.get(LEFT, ""))


def latest_of(db: sqlite3.Connection, run: int) -> int:
    """Return the newest sequence in the run's log, 0 if it is empty."""
    row = db.execute("SELECT coalesce(max(last), 0) FROM frames WHERE run = ?", (run,)).fetchone()
    (latest,) = fitting(row, int)
    return int(latest)


def frames_after(
    db: sqlite3.Connection, run: int, after: int, limit: int
) -> tuple[list[Frame], int]:
    """Return the frames that hold events after the cursor, up to the one that reaches `limit`.

    With them comes the last sequence that was looked at. `limit` is in bytes. Marks of claims hold
    no events, and are left out.

    Raises:
        ForeignValueError: events are missing, or a row is damaged.

    """
    found = []
    size = 0
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
        found.append(Frame(first=first, last=last, data=data))
        size += len(data)
        if size >= limit:
            break
    return found, following - 1


def frames_of(
    db: sqlite3.Connection, run: int, branch: int, after: int, limit: int, *, ended: bool
) -> tuple[list[Frame], int]:
    """Return the frames that may hold events of a branch, as `frames_after` returns all frames.

    The last frame of a run that has ended is one of them.

    Raises:
        ForeignValueError: a row is missing, or damaged.

    """
    found = []
    size = 0
    latest = latest_of(db, run)
    for (last,) in db.execute(
        "SELECT last FROM branches WHERE run = :run AND number = :any AND last > :after "
        "UNION SELECT last FROM branches WHERE run = :run AND number = :branch AND last > :after "
        "UNION SELECT :end WHERE :end > :after ORDER BY last",
        {"run": run, "any": ANY, "branch": branch, "after": after, "end": latest if ended else 0},
    ):
        found.append(frame_to(db, run, last))
        size += len(found[-1].data)
        if size >= limit:
            return found, last
    return found, max(after, latest)


def frame_to(db: sqlite3.Connection, run: int, last: int) -> Frame:
    """Return the frame whose last event has this sequence.

    Raises:
        ForeignValueError: it is missing, or damaged.

    """
    row = db.execute(
        "SELECT first, last, data FROM frames WHERE run = ? AND last = ? AND first <= last",
        (run, last),
    ).fetchone()
    if row is None:
        raise ForeignValueError(f"the events up to {last} are missing")
    first, last, data = fitting(row, int, int, bytes)
    return Frame(first=first, last=last, data=data)


def private_beside(db: sqlite3.Connection, run: int, sequence: int) -> bytes | None:
    """Return the private part of the row that holds an event; None if the log has no such row."""
    row = db.execute(
        "SELECT private FROM frames WHERE run = ? AND last >= ? AND first <= ? "
        "ORDER BY last LIMIT 1",
        (run, sequence, sequence),
    ).fetchone()
    return None if row is None else bytes(*fitting(row, bytes))


def history_page(
    db: sqlite3.Connection, run: int, place: tuple[int, int], limit: int
) -> tuple[tuple[int, int], list[Entry]]:
    """Return the entries behind a place in the log, up to the one that reaches `limit` bytes.

    Returns:
        The place behind the last of them, and the entries. The place before the first entry
        of a log is (-1, 0).

    """
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
