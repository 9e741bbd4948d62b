"""What a claimed run has open: whether it works, or only waits."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from polos_service.runs.clock import Clock
from polos_service.runs.frame import SECOND

LEAST_PAUSE = SECOND // 5
"""Nanoseconds until a run is woken that was parked because it can only try again, at least."""

FOREVER = 1 << 62
"""A time, in nanoseconds since the epoch, that does not come."""


@dataclass(frozen=True, slots=True)
class Rest:
    """A time at which the run only waits.

    Attributes:
        wake_at: when the first wait ends, in nanoseconds since the epoch; None: no time does it.
        change: what had changed by then; see `Activity.is_still`.

    """

    wake_at: int | None
    change: int


class Activity:
    """The steps at work and the open waits of a root run and its children.

    A run may be parked when all that is open are waits that take longer than a threshold, and
    nothing has begun or ended for as long.
    """

    def __init__(self, clock: Clock, threshold: float) -> None:
        """Nothing is open yet; the threshold is in seconds."""
        self._clock = clock
        self._threshold = round(threshold * SECOND)
        self._steps = 0
        self._waits: dict[object, int] = {}
        self._changed = clock.now()
        self._changes = 0
        self._waited = 0
        self._waits_since = 0
        self._waiting = asyncio.Event()
        self._no_waits = asyncio.Event()
        self._no_waits.set()
        self._moved = asyncio.Event()

    def work(self) -> None:
        """Note that a step begins."""
        self._steps += 1
        self._change()

    def rest(self) -> None:
        """Note that a step has ended."""
        self._steps -= 1
        self._change()

    @contextmanager
    def working(self) -> Iterator[None]:
        """Keep the run from being parked."""
        self.work()
        try:
            yield
        finally:
            self.rest()

    def wait(self, wait_id: object, until: int | None) -> None:
        """Note that a wait begins, and until when it takes at most."""
        if not self._waits:
            self._waits_since = self._clock.now()
            self._no_waits.clear()
        self._waits[wait_id] = FOREVER if until is None else until
        self._change()

    def over(self, wait_id: object) -> None:
        """Note that a wait has ended."""
        self._waits.pop(wait_id, None)
        if not self._waits and not self._no_waits.is_set():
            self._waited += self._clock.now() - self._waits_since
            self._no_waits.set()
        self._change()

    @contextmanager
    def pausing(self, since: int) -> Iterator[int]:
        """Wait for what no event tells of; give the time at which a run is woken that is parked.

        It is far enough away for the run to be parked, and near enough to look again. Who has
        waited for long looks seldom: each look takes a slot that others wait for.

        Args:
            since: when the run began to wait for it, in nanoseconds since the epoch.

        """
        pause = object()
        now = self._clock.now()
        until = now + max(4 * self._threshold, LEAST_PAUSE, now - since)
        self.wait(pause, until)
        try:
            yield until
        finally:
            self.over(pause)

    def touch(self) -> None:
        """Note that something has come for the run, which its code does not know yet."""
        self._change()

    def is_still(self, rest: Rest) -> bool:
        """Return whether nothing has begun, ended or come since."""
        return self._changes == rest.change

    def waited(self) -> int:
        """Return for how many nanoseconds any wait was open in this claim."""
        return self._waited + (self._clock.now() - self._waits_since if self._waits else 0)

    async def waits_over(self) -> None:
        """Return once no wait is open."""
        await self._no_waits.wait()

    async def parkable(self) -> Rest:
        """Return when the run may be parked."""
        while True:
            await self._waiting.wait()
            if not self._waiting.is_set():  # no more, by the time that this goes on
                continue
            now = self._clock.now()
            self._changed = min(self._changed, now)  # the clock was set back
            first = min(self._waits.values())
            # The later of: quiet for long enough, and the first wait still long enough.
            quiet_at = self._changed + self._threshold
            if first - now <= self._threshold:
                self._moved.clear()
                await self._moved.wait()  # its end, unless something else is first
            elif quiet_at > now:
                await self._clock.sleep((quiet_at - now) / SECOND)
            else:
                return Rest(None if first == FOREVER else first, self._changes)

    def _change(self) -> None:
        self._changes += 1
        self._changed = self._clock.now()
        self._moved.set()
        if self._waits and not self._steps:
            self._waiting.set()
        else:
            self._waiting.clear()
