"""Starts that the queue has no room for: who waits for it, and who is woken when there is some."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

from polos_client.errors import StoreUnavailable
from polos_service.cancelling import cancel_until_done
from polos_service.logs import get_logger
from polos_service.store import Claims, Key

log = get_logger(__name__)


TURN = 60.0
"""Seconds that a run which was woken may take to come to its start before another one is woken, and
for which one that was cut off is looked after: it wakes by itself before."""


class Room:
    """The line of the steps of this process that wait for room in the queue.

    Whenever a run leaves the queue, or a step has got room, the first in line tries again, and goes
    to the end of the line. One parked run is queued again as well, to try once it has a slot. It
    takes room in the queue by that: so there is one such run at a time.

    What leaves the queue elsewhere is not noticed here: whoever waits tries now and then by itself
    as well, and a parked run has a time at which it is woken.
    """

    def __init__(self, store: Claims) -> None:
        self._store = store
        self._line: dict[asyncio.Event, None] = {}
        self._cut_off: dict[Key, float] = {}
        """Runs whose steps were cut off, as they are parked, and when."""
        self._woken: Key | None = None
        self._until = 0.0
        self._waking: asyncio.Task[None] | None = None
        self._leave = store.on_room(self._next)

    async def close(self) -> None:
        """Wake nobody any more; the next process wakes the runs that are parked at their times."""
        self._leave()
        self._cut_off.clear()
        if self._waking is not None:
            await cancel_until_done({self._waking})

    @contextmanager
    def waiting(self, project: str, root: str) -> Iterator[asyncio.Event]:
        """Stand in line until room is found; give the event that says when to try again.

        It may be set before the first try is refused: then there may be room since.
        """
        run = (project, root)
        freed = asyncio.Event()
        self._line[freed] = None
        self._cut_off.pop(run, None)
        is_cut_off = False
        try:
            yield freed
        except asyncio.CancelledError:
            self._cut_off[run] = now()
            is_cut_off = True
            raise
        finally:
            del self._line[freed]
            if self._woken == run:
                self._woken = None
            if freed.is_set() or not is_cut_off:  # cut off, it leaves its turn to the next
                self._next()

    def _next(self) -> None:
        """Let the first in line try, and wake a run that is parked."""
        freed = next(iter(self._line), None)
        if freed is not None:
            del self._line[freed]
            self._line[freed] = None
            freed.set()
        idle = self._waking is None or self._waking.done()
        if self._cut_off and idle and (self._woken is None or now() >= self._until):
            self._waking = asyncio.create_task(self._wake(), name="polos-wake-for-room")

    async def _wake(self) -> None:
        """Wake the first run that is parked; it may not be yet, or not any more."""
        for run, since in list(self._cut_off.items()):
            if now() - since > TURN:
                self._cut_off.pop(run, None)
                continue
            self._woken, self._until = run, now() + TURN
            try:
                if await self._store.wake(*run):
                    self._cut_off.pop(run, None)
                    return
            except StoreUnavailable as error:  # it wakes at its time
                log.warning("run_not_woken", run_id=run[1], error=str(error))
            self._woken = None


def now() -> float:
    """Return the loop's time, in seconds."""
    return asyncio.get_running_loop().time()
