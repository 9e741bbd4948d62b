"""The spool: frames of held runs between their commit and their place in the log.

A commit writes one row for the frames of all runs, with one statement: a row for each frame, and
an entry in the log's index for each, cost several times as much. Unspooling a run moves its
frames into its log, as few large rows. It happens before anything else is written there: when
the run ends, is released or taken over. When the spool has grown to SPOOL_LIMIT, every run is
unspooled and the spool is empty. What a killed process leaves in it is recovered by the next.

One thread commits and owns a Spool. It knows who holds which run without asking the file: the
file has one owner, and every change of a claim comes through here.
"""

from __future__ import annotations

import sqlite3
import struct
import time
import zlib
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from polos_service.errors import Fenced
from polos_service.logs import get_logger
from polos_service.store import Claim, Frame, Key
from polos_service.store.sqlite.damage import fitting
from polos_service.store.sqlite.log import HELD, Row, insert_mark, insert_rows, latest_of
from polos_service.store.sqlite.runs import LATEST
from polos_service.store.sqlite.schema import RUNNING

SPOOL_LIMIT = 256 * 1024
"""Bytes in the spool beyond which it is emptied. They are in memory, too, for readers."""

ROW_LIMIT = 64 * 1024
"""Bytes of a row of the log that holds several frames: as many as a response to a reader."""

BRANCHED = 4 * 1024
"""Bytes of such a row that has events of children: to read one child, all of it is read."""

LARGE = 16 * 1024
"""Bytes of a frame that goes into the log at once: to write it twice costs more than a row."""

CHECKSUM = struct.Struct("<I")
"""The CRC-32 of the rest of a row of the spool, before it."""

ENTRY = struct.Struct("<qqqII")
"""What stands before each frame in a row of the spool: run, first, last, bytes of the data, and
of the private part. If `first` is 0, the run's frames before are in its log."""

log = get_logger(__name__)


class Spooled(NamedTuple):
    """A frame in the spool, behind the others of its run."""

    frame: Frame
    private: bytes
    before: Spooled | None


class Held(NamedTuple):
    """A run that is held: its row, who holds it, its newest sequence, its last frame spooled."""

    run: int
    epoch: int
    latest: int
    spooled: Spooled | None


class Spool:
    """The spool as the committing thread has it; each method is part of a transaction.

    What the transaction changes here is undone with `undo`, and kept with `keep`.
    """

    def __init__(self, owner: bytes) -> None:
        """Begin with what an empty spool knows; `owner` is the token of the file's owner."""
        self._owner = owner
        self._held: dict[Key, Held] = {}
        self._former: dict[Key, Held | None] = {}
        """What the open transaction has changed in `_held`, as it was before."""
        self._entries: list[bytes] = []
        """The row that the open transaction writes, in pieces."""

    def hold(self, claim: Claim, run: int) -> None:
        """Take note of a claim that has begun on a row of runs."""
        self._put((claim.project, claim.run_id), Held(run, claim.epoch, claim.latest, None))

    def append(self, db: sqlite3.Connection, claim: Claim, frame: Frame, private: bytes) -> None:
        """Append a frame, if the claim still holds and the frame is the next one.

        Raises:
            Fenced: the claim was lost.
            ValueError: the frame is not the next one.

        """
        key = claim.project, claim.run_id
        held = self._held.get(key) or find(db, claim)
        if held is None or held.epoch != claim.epoch:
            raise Fenced(f"The claim {claim.epoch} on run {claim.run_id} was lost.")
        run, epoch, latest, spooled = held
        if frame.first != latest + 1 or frame.last < frame.first:
            raise ValueError(
                f"A frame of events {frame.first} to {frame.last} cannot follow event {latest}."
            )
        if fits(frame, private):
            self._entries += (entry(run, frame, private), frame.data, private)
            self._put(key, Held(run, epoch, frame.last, Spooled(frame, private, spooled)))
            return
        self._unspool(db, key, held)
        insert_rows(db, joined(run, [(frame, private)]))
        if frame.outcome is None:
            self._put(key, Held(run, epoch, frame.last, None))
            return
        db.execute(
            "UPDATE runs SET state = ?, finish_time = ? WHERE id = ?",
            (frame.outcome, time.time_ns(), run),
        )
        db.execute("DELETE FROM waits WHERE run = ?", (run,))
        self._put(key, None)

    def private_beside(self, project: str, run_id: str, sequence: int) -> bytes | None:
        """Return the private part of the frame that holds an event; None if it is not here."""
        held = self._held.get((project, run_id))
        frames = in_order(held.spooled) if held is not None else []
        found = (private for frame, private in frames if frame.first <= sequence <= frame.last)
        return next(found, None)

    def unspool(self, db: sqlite3.Connection, project: str, run_id: str) -> None:
        """Move a run's frames into its log."""
        held = self._held.get((project, run_id))
        if held is not None:
            self._unspool(db, (project, run_id), held)

    def let_go(self, db: sqlite3.Connection, project: str, run_id: str) -> None:
        """Move a run's frames into its log, and forget who holds it."""
        self.unspool(db, project, run_id)
        self._put((project, run_id), None)

    def unspool_all(self, db: sqlite3.Connection) -> None:
        """Move every run's frames into its log, and empty the spool."""
        spooled = [(key, held) for key, held in self._held.items() if held.spooled is not None]
        insert_rows(
            db, [row for _, held in spooled for row in joined(held.run, in_order(held.spooled))]
        )
        for key, held in spooled:
            self._put(key, held._replace(spooled=None))
        self._entries.clear()
        db.execute("DELETE FROM spool")

    def write(self, db: sqlite3.Connection) -> bool:
        """Write what the transaction has spooled; call it last, before the commit.

        Outside a transaction it is one of its own. Returns whether the file still has its owner,
        as far as anything was written.
        """
        if not self._entries:
            return True
        entries = b"".join(self._entries)
        written = db.execute(
            "INSERT INTO spool (entries) SELECT ? FROM owner WHERE token = ?",
            (CHECKSUM.pack(zlib.crc32(entries)) + entries, self._owner),
        )
        return written.rowcount == 1

    def keep(self) -> None:
        """Take note that the transaction was committed."""
        self._former.clear()
        self._entries.clear()

    def undo(self) -> None:
        """Restore what was here before the transaction."""
        for key, held in self._former.items():
            self._set(key, held)
        self.keep()

    def _unspool(self, db: sqlite3.Connection, key: Key, held: Held) -> None:
        if held.spooled is not None:
            insert_rows(db, joined(held.run, in_order(held.spooled)))
            self._entries.append(ENTRY.pack(held.run, 0, 0, 0, 0))
            self._put(key, held._replace(spooled=None))

    def _put(self, key: Key, held: Held | None) -> None:
        if key not in self._former:
            self._former[key] = self._held.get(key)
        self._set(key, held)

    def _set(self, key: Key, held: Held | None) -> None:
        if held is None:
            self._held.pop(key, None)
        else:
            self._held[key] = held


def fits(frame: Frame, private: bytes) -> bool:
    """Return whether a frame goes into the spool, and not into the log at once."""
    return frame.outcome is None and len(frame.data) + len(private) < LARGE


def find(db: sqlite3.Connection, claim: Claim) -> Held | None:
    """Look in the file for a run that nothing is known of here; None if the claim was lost."""
    row = db.execute(
        f"SELECT id, {LATEST} FROM runs WHERE {HELD}",
        (claim.project, claim.run_id, claim.epoch),
    ).fetchone()
    if row is None:
        return None
    run, latest = fitting(row, int, int)
    return Held(run, claim.epoch, latest, None)


def in_order(newest: Spooled | None) -> list[tuple[Frame, bytes]]:
    """Return a run's frames in the spool, the oldest first, with their private parts."""
    found = []
    while newest is not None:
        found.append((newest.frame, newest.private))
        newest = newest.before
    found.reverse()
    return found


def joined(run: int, frames: Iterable[tuple[Frame, bytes]]) -> Iterator[Row]:
    """Yield rows of the log that hold frames which follow each other."""
    together: list[tuple[Frame, bytes]] = []
    size, branched = 0, False
    for frame, private in frames:
        added = len(frame.data) + len(private)
        limit = BRANCHED if branched or frame.branches else ROW_LIMIT
        if together and size + added > limit:
            yield row_of(run, together)
            together, size, branched = [], 0, False
        together.append((frame, private))
        size += added
        branched = branched or bool(frame.branches)
    if together:
        yield row_of(run, together)


def row_of(run: int, together: Sequence[tuple[Frame, bytes]]) -> Row:
    """Return the row that holds these frames."""
    frames = [frame for frame, _ in together]
    known = [frame.branches for frame in frames if frame.branches is not None]
    return Row(
        run=run,
        first=frames[0].first,
        last=frames[-1].last,
        data=b"".join(frame.data for frame in frames),
        private=b"".join(private for _, private in together),
        branches=frozenset().union(*known) if len(known) == len(frames) else None,
    )


def entry(run: int, frame: Frame, private: bytes) -> bytes:
    """Return what stands before a frame in a row of the spool."""
    return ENTRY.pack(run, frame.first, frame.last, len(frame.data), len(private))


def entries_of(row: object) -> Iterator[tuple[int, Frame, bytes]]:
    """Yield run, frame and private part of each entry in a row of the spool.

    Raises:
        ValueError, struct.error: the row is damaged.

    """
    at = CHECKSUM.size
    if (
        not isinstance(row, bytes)
        or len(row) < at
        or CHECKSUM.unpack_from(row) != (zlib.crc32(row[at:]),)
    ):
        raise ValueError("it does not have the checksum that it was written with")
    while at < len(row):
        run, first, last, size, beside = ENTRY.unpack_from(row, at)
        data = at + ENTRY.size
        private = data + size
        at = private + beside
        yield run, Frame(first=first, last=last, data=row[data:private]), row[private:at]


def spooled_frames(
    db: sqlite3.Connection,
) -> tuple[dict[int, list[tuple[Frame, bytes]]], list[int]]:
    """Return the frames in the spool by row of runs, and the rows of the spool that are damaged."""
    found: dict[int, list[tuple[Frame, bytes]]] = {}
    damaged = []
    for row, entries in db.execute("SELECT id, entries FROM spool ORDER BY id"):
        try:
            for run, frame, private in entries_of(entries):
                if frame.first:
                    found.setdefault(run, []).append((frame, private))
                else:
                    found.pop(run, None)
        except (ValueError, struct.error):
            damaged.append(row)
    return found, damaged


def recover(db: sqlite3.Connection) -> None:
    """Move what the last process left in the spool into the logs, and empty the spool.

    Nobody knows whose frames a damaged row held. So if there is one, every run that was held is
    marked, and ends with an error; its log goes as far as no event is missing.
    """
    found, damaged = spooled_frames(db)
    held = [run for (run,) in db.execute(f"SELECT id FROM runs WHERE state = {RUNNING:d}")]
    for run in held:
        insert_rows(db, joined(run, following(latest_of(db, run), found.get(run, ()))))
        if damaged:
            insert_mark(db, run, {"lost": {"rows": damaged}})
    if damaged:
        log.error("store_spool_damaged", rows=damaged, runs=len(held))
    db.execute("DELETE FROM spool")


def following(latest: int, frames: Iterable[tuple[Frame, bytes]]) -> Iterator[tuple[Frame, bytes]]:
    """Yield the frames that follow a sequence without a gap."""
    for frame, private in frames:
        if frame.first == latest + 1:
            yield frame, private
            latest = frame.last
