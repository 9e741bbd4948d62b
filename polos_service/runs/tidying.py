"""What is done beside the code of a claim's runs, for others: nothing in the code depends on it."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

from polos_service.cancelling import seen


class Tidying:
    """The tasks that work beside the code of a root run and its children."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[None]] = set()

    def begin(self, work: Coroutine[Any, Any, None]) -> None:
        """Do something beside the code. A failure is nobody's."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        task.add_done_callback(seen)

    def drop(self) -> None:
        """Cancel what has begun and is not done."""
        for task in self._tasks:
            task.cancel()

    async def done(self) -> None:
        """Wait for the end of what has begun."""
        if self._tasks:
            await asyncio.wait(self._tasks)
