"""Paces work on long logs, so that whoever wants little is not kept waiting by it."""

from __future__ import annotations

import asyncio
from collections import deque

CROWD = 100
"""Pieces of work that may wait before each is followed by a pause: every call that comes in needs
turns of the loop of its own."""

REST = 2
"""How many times as long as a piece of work the pause behind it is."""


class Pacer:
    """Lets one piece of work begin in each turn of the loop; the others wait in order."""

    def __init__(self, crowd: float = CROWD) -> None:
        """Let more than `crowd` pieces of work that wait rest after each; math.inf: none rests."""
        self._crowd = crowd
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
        if len(self._waiting) > self._crowd:
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
