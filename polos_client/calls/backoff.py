"""Waiting between attempts, within a bound."""

from __future__ import annotations

import asyncio
import random

from polos_client.errors import CallError, PolosError

_FIRST = 0.05
_MOST = 2.0


class Backoff:
    """Waits longer after each failure, and gives up after `bound` seconds of them."""

    def __init__(self, bound: float) -> None:
        """Give up `bound` seconds after the first failure since the last `reset`."""
        self._bound = bound
        self.reset()

    def reset(self) -> None:
        """Forget the failures: something succeeded."""
        self._deadline: float | None = None
        self._delay = _FIRST

    async def wait(self, failure: PolosError) -> None:
        """Wait before the next attempt, at least as long as the failure asks for.

        Raises:
            PolosError: `failure`, if the bound would pass meanwhile.

        """
        now = asyncio.get_running_loop().time()
        if self._deadline is None:
            self._deadline = now + self._bound
        hint = failure.retry_after if isinstance(failure, CallError) else None
        # Jitter, so that the clients of a service that restarts do not come back at once.
        delay = max(self._delay * random.uniform(0.5, 1.5), hint or 0.0)  # noqa: S311
        if now + delay > self._deadline:
            raise failure
        self._delay = min(self._delay * 2, _MOST)
        await asyncio.sleep(delay)
