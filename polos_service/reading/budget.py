"""A bound on the bytes that many callers hold at once."""

from __future__ import annotations

import asyncio
from collections import deque


class Budget:
    """Bytes that can be taken and given back. Whoever finds too few left waits, in order."""

    def __init__(self, size: int) -> None:
        self._left = size
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()

    async def take(self, size: int) -> None:
        """Take bytes, at most as many as there are in all, as soon as they are left."""
        if not self._waiting and size <= self._left:
            self._left -= size
            return
        turn = asyncio.get_running_loop().create_future()
        self._waiting.append((size, turn))
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self.give(size)
            else:
                self._waiting.remove((size, turn))
                self.give(0)  # whoever waited behind may need less
            raise

    def give(self, size: int) -> None:
        """Give bytes back."""
        self._left += size
        while self._waiting and self._waiting[0][0] <= self._left:
            taken, turn = self._waiting.popleft()
            self._left -= taken
            turn.set_result(None)
