"""Turns for work on long logs, so that whoever wants little is not kept waiting by it."""

from __future__ import annotations

import asyncio
from collections import deque

CROWD, REST = 100, 2
"""Where more pieces of work wait than CROWD, there is a pause behind each, REST times as long as
the turn in which it was done: each call that comes in needs turns of the loop of its own."""


class Turns:
    """Lets one piece of work begin in each turn of the loop; the others wait in order."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._taken = False
        self._began = 0.0

    async def next(self) -> None:
        """Return when it is the caller's turn."""
        if self._taken:
            turn = self._loop.create_future()
            self._waiting.append(turn)
            await turn
        else:
            self._take()

    def _take(self) -> None:
        self._taken = True
        self._began = self._loop.time()
        self._loop.call_soon(self._pass_on)

    def _pass_on(self) -> None:
        """Run in the loop's next turn, when everything else that was ready has run."""
        if len(self._waiting) > CROWD:
            self._loop.call_later(REST * (self._loop.time() - self._began), self._give)
        else:
            self._give()

    def _give(self) -> None:
        self._taken = False
        while self._waiting and not self._taken:
            turn = self._waiting.popleft()
            if not turn.done():  # whoever waited for it may be gone
                turn.set_result(None)
                self._take()
