"""Waiting between attempts, within a bound."""

from __future__ import annotations

import asyncio
import random

from polos_client.errors import CallError, PolosError

_FIRST = 0.05
_MOST = 2.0


class Backoff:
    """Waits longer after each failure, and gives up after `bound` seconds of them.

    Attributes:
        renewed: whether a refused credential was renewed since the service last took one.

    """

    def __init__(self, bound: float) -> None:
        """Give up `bound` seconds after the first failure since the last `reset`."""
        self._bound = bound
        self._reached: float | None = None
        self.reset()

    def reset(self) -> None:
        """Forget the failures: something succeeded."""
        self.renewed = False
        self._deadline: float | None = None
        self._delay = _FIRST

    def reached(self) -> None:
        """Forget the failures, but go on to wait longer while it lasts only for a moment."""
        self.renewed = False
        self._deadline = None
        # Jitter does not bring half of the bound over it.
        self._delay = max(_FIRST, min(self._delay, self._bound / 2))
        self._reached = asyncio.get_running_loop().time()

    async def wait(self, failure: PolosError, bound: float | None = None) -> None:
        """Wait before the next attempt, at least as long as the failure asks for.

        Args:
            failure: why it is needed.
            bound: gives up so many seconds from now, if that is sooner; None: it is not.

        Raises:
            PolosError: `failure`, if the bound would pass meanwhile.

        """
        now = asyncio.get_running_loop().time()
        if self._deadline is None:
            self._deadline = now + self._bound
        if bound is not None:
            self._deadline = min(self._deadline, now + bound)
        if self._reached is not None and now - self._reached >= _MOST:
            self._delay = _FIRST
        self._reached = None
        hint = failure.retry_after if isinstance(failure, CallError) else None
        # Jitter, so that the clients of a service that restarts do not come back at once.
        delay = (hint or 0.0) + self._delay * random.uniform(0.5, 1.5)  # noqa: S311
        if now + delay > self._deadline:
            raise failure
        self._delay = min(self._delay * 2, _MOST)
        await asyncio.sleep(delay)
