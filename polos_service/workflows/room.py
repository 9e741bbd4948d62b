"""Starts that the queue has no room for: who waits for it, and who is woken when there is some."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from polos_client.errors import StoreUnavailable
from polos_service.logs import get_logger
from polos_service.store import Key, RunStore

log = get_logger(__name__)


TURN = 60.0
"""Seconds that a run which was woken may take to come to its start before another one is woken."""


@dataclass(eq=False, slots=True)
class Waiter:
    """A step that waits for room.

    Attributes:
        run: the project and the id of the root run that it belongs to.
        freed: set when it is its turn to try again.
        left: whether it was cut off: its run is parked, as a rule.

    """

    run: Key
    freed: asyncio.Event = field(default_factory=asyncio.Event)
    left: bool = False


class Room:
    """The line of the steps of this process that wait for room in the queue.

    Whenever a run leaves the queue, the first in line tries again, and goes to the end of the line.
    A parked run is queued again instead, to try once it has a slot. It takes room in the queue by
    that: so there is one such run at a time. Who has got room lets the next one try.

    What leaves the queue elsewhere is not noticed here: whoever waits tries now and then by itself
    as well, and a parked run has a time at which it is woken.
    """

    def __init__(self, store: RunStore) -> None:
        self._store = store
        self._line: dict[Waiter, None] = {}
        self._woken: Key | None = None
        self._until = 0.0
        self._waking: set[asyncio.Task[None]] = set()
        store.on_room(self._next)

    @contextmanager
    def waiting(self, project: str, root: str) -> Iterator[asyncio.Event]:
        """Stand in line; give the event that says that it is the step's turn to try again."""
        waiter = Waiter((project, root))
        self._line[waiter] = None
        self._come(waiter.run)
        try:
            yield waiter.freed
        except BaseException:
            waiter.left = True
            raise
        self._line.pop(waiter, None)
        self._next()

    def got(self, project: str, root: str) -> None:
        """Note that a step of a run has got room."""
        if self._come((project, root)):
            self._next()

    def _come(self, run: Key) -> bool:
        """Note that a run has come to a start; return whether it is the one that was woken."""
        if self._woken != run:
            return False
        self._woken = None
        return True

    def _next(self) -> None:
        """Let the first in line try that can."""
        now = asyncio.get_running_loop().time()
        may_wake = self._woken is None or now >= self._until
        waiter = next((one for one in self._line if may_wake or not one.left), None)
        if waiter is None:
            return
        if waiter.left:
            self._woken, self._until = waiter.run, now + TURN
            for one in [one for one in self._line if one.left and one.run == waiter.run]:
                del self._line[one]
            task = asyncio.create_task(self._wake(waiter.run), name="polos-wake-for-room")
            self._waking.add(task)
            task.add_done_callback(self._waking.discard)
        else:
            del self._line[waiter]
            self._line[waiter] = None
            waiter.freed.set()

    async def _wake(self, run: Key) -> None:
        woken = False
        try:
            woken = await self._store.wake(*run)
        except StoreUnavailable as error:  # it wakes at its time
            log.warning("run_not_woken", run_id=run[1], error=str(error))
        if not woken and self._come(run):
            self._next()
