"""The cancellation of a child by somebody, while its root goes on."""

from __future__ import annotations

import asyncio

from polos_service.runs.answers import CANCELLED
from polos_service.runs.holding import Holding


class Cancellation:
    """Whether somebody cancels one child."""

    def __init__(self, holding: Holding, run_id: str) -> None:
        self._run_id = run_id
        self._writer = holding.writer
        self._inbox = None if holding.waiting is None else holding.waiting.inbox

    @property
    def has_come(self) -> bool:
        """Whether somebody has cancelled the child."""
        return self._inbox is not None and self._inbox.has_cancelled(self._run_id)

    async def comes(self) -> None:
        """Return when somebody cancels the child."""
        if self._inbox is None:
            await asyncio.Event().wait()
        else:
            await self._inbox.answer(self._run_id, "")

    async def settle(self) -> None:
        """Give back the room that it takes in the inbox, once the log has the child's end."""
        await self._writer.flush()
        if self._inbox is not None:
            await self._inbox.settle(self._run_id, "", CANCELLED)
