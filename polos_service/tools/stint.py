"""How long the code of a tool works: what it holds meanwhile, and gives back where it waits."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractContextManager, ExitStack, asynccontextmanager
from types import TracebackType
from typing import Any, Self

from polos_service.errors import StepError


class Limit:
    """The time that the code of a tool may take. It runs from now on, and can stand still.

    Attributes:
        seconds: how long it is in all.
        cut: why the code has to end before; None if it has not.

    """

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.cut: StepError | None = None
        self._left = seconds
        self._loop = asyncio.get_running_loop()
        self._over: asyncio.Future[None] = self._loop.create_future()
        self.go_on()

    def go_on(self) -> None:
        """Count the time from now on."""
        self._since = self._loop.time()
        self._timer = self._loop.call_later(self._left, self._end)

    def stand_still(self) -> None:
        """Count no time until `go_on` is called."""
        self._timer.cancel()
        self._left -= self._loop.time() - self._since

    def cut_short(self, reason: StepError) -> None:
        """Let the time be over now."""
        self.cut = reason
        self._end()

    async def reached(self, task: asyncio.Task[Any]) -> bool:
        """Return whether the time is over before a task is done; once either is so."""
        ends: set[asyncio.Future[Any]] = {task, self._over}
        try:
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._timer.cancel()
        return not task.done()

    def _end(self) -> None:
        if not self._over.done():
            self._over.set_result(None)


class Stint:
    """One tool's code at work: it holds a place, keeps its run from being parked, and is timed.

    Where it is away, because it waits in `ctx.step` for something that counts by itself, it does
    none of that.

    """

    def __init__(
        self, places: asyncio.Semaphore, working: Callable[[], AbstractContextManager[None]]
    ) -> None:
        """Prepare the work.

        Args:
            places: bounds the code that works at once.
            working: keeps the run from being parked.

        """
        self._places = places
        self._working = working
        self._limit: Limit | None = None
        self._away = 0
        self._has_place = False
        self._works = ExitStack()
        self._at_work = False
        self._over = False

    async def __aenter__(self) -> Self:
        """Begin, once there is a place."""
        await self._take_place()
        self._work()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Give everything back."""
        self._over = True
        self._give_back()

    def limit(self, seconds: float) -> Limit:
        """Return how long the code may work from now on."""
        self._limit = Limit(seconds)
        return self._limit

    @asynccontextmanager
    async def away(self) -> AsyncIterator[None]:
        """Give everything back until the block is left, and all others like it."""
        self._away += 1
        self._give_back()
        waits = True
        try:
            yield
        except asyncio.CancelledError:
            waits = False  # for a place: the code is stopped, or goes on with something else
            raise
        finally:
            self._away -= 1
            try:
                if waits:
                    await self._take_place()
            finally:
                self._work()

    async def _take_place(self) -> None:
        if not self._needs_place:
            return
        await self._places.acquire()
        if self._needs_place:  # still
            self._has_place = True
        else:
            self._places.release()

    @property
    def _needs_place(self) -> bool:
        return not (self._away or self._has_place or self._over)

    def _work(self) -> None:
        if self._away or self._over or self._at_work:
            return
        self._at_work = True
        self._works.enter_context(self._working())
        if self._limit is not None:
            self._limit.go_on()

    def _give_back(self) -> None:
        if self._at_work:
            self._at_work = False
            self._works.close()
            if self._limit is not None:
                self._limit.stand_still()
        if self._has_place:
            self._has_place = False
            self._places.release()
