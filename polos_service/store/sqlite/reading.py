"""Logs as their readers see them: what the file has, and behind it the newest frames in memory."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from polos_service.store import ENDED, Claim, Entry, Frame, Slice
from polos_service.store.sqlite import log
from polos_service.store.sqlite.committer import Committer
from polos_service.store.sqlite.damage import ForeignValueError
from polos_service.store.sqlite.open_runs import OpenRuns
from polos_service.store.sqlite.runs import row_of
from polos_service.store.sqlite.snapshots import Snapshots
from polos_service.store.sqlite.spool import Spool
from polos_service.store.sqlite.tails import Tails

PAGE = 1024 * 1024
"""Bytes of history read before the loop gets a turn."""


class Reader:
    """Reads the logs of all runs."""

    def __init__(
        self,
        reading: Snapshots,
        tails: Tails,
        open_runs: OpenRuns,
        committer: Committer,
        spool: Spool,
    ) -> None:
        self._reading = reading
        self._tails = tails
        self._open = open_runs
        self._committer = committer
        self._spool = spool

    def read(
        self, project: str, run_id: str, after: int, limit: int, branch: int | None = None
    ) -> Slice:
        """Read frames from the cursor on."""
        key = (project, run_id)
        if newest := self._tails.after(key, after, limit):
            latest, covered = self._tails.latest(key), newest[-1].last
            return Slice(frames=of(branch, newest), latest=latest, ended=False, covered=covered)
        if self._open.is_unwritten(key):
            return Slice(frames=(), latest=0, ended=False, covered=after)
        with self._reading() as db:
            run, state = row_of(db, project, run_id)
            ended = state in ENDED
            if branch is None:
                frames, covered = log.frames_after(db, run, after, limit)
            else:
                frames, covered = log.frames_of(db, run, branch, after, limit, ended=ended)
            left = limit - sum(len(one.data) for one in frames)
            if left > 0 and (newest := self._tails.after(key, covered, left)):
                frames += of(branch, newest)
                covered = newest[-1].last
            latest = max(log.latest_of(db, run), self._tails.latest(key))
            if covered <= after < latest:
                raise ForeignValueError(f"events after {after} are missing")
            return Slice(frames=frames, latest=latest, ended=ended, covered=covered)

    def grown(self, project: str, run_id: str, after: int) -> bool:
        """Return whether the log holds an event after the cursor, or the run has ended."""
        newest = self._tails.latest((project, run_id))
        if newest:
            return newest > after
        with self._reading() as db:
            run, state = row_of(db, project, run_id)
            return state in ENDED or log.latest_of(db, run) > after

    async def history(self, claim: Claim) -> AsyncIterator[Entry]:
        """Yield every frame with its private part."""
        key = (claim.project, claim.run_id)
        if self._tails.latest(key):
            await self._committer.submit(
                lambda db: self._spool.unspool(db, *key), lambda _: self._tails.unspooled(key)
            )
        place = (-1, 0)
        while True:
            # A page at a time: a statement left open would keep the reader's snapshot, and
            # with it every tail, from moving on.
            with self._reading(f"log of run {claim.run_id}") as db:
                run, _ = row_of(db, *key)
                place, page = log.history_page(db, run, place, PAGE)
            if not page:
                return
            for entry in page:
                yield entry
            await asyncio.sleep(0)

    async def private(self, project: str, run_id: str, sequence: int) -> bytes:
        """Return what is stored beside an event."""
        with self._reading() as db:
            run, _ = row_of(db, project, run_id)
            found = log.private_beside(db, run, sequence)
        if found is None:  # the committing thread has the spool, and may empty it any time
            found = await self._committer.submit(
                lambda db: (
                    self._spool.private_beside(project, run_id, sequence)
                    or log.private_beside(db, run, sequence)
                )
            )
        return found or b""


def of(branch: int | None, frames: list[Frame]) -> list[Frame]:
    """Return the frames that may hold events of a branch; None: all of them."""
    return frames if branch is None else [one for one in frames if one.may_hold(branch)]
