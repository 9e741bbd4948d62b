"""The tasks of a server that is about to end."""

from __future__ import annotations

import asyncio


class Tasks:
    """Tasks that are inside `async with`, until `end` cancels them."""

    def __init__(self) -> None:
        self._inside: set[asyncio.Task[object]] = set()

    async def __aenter__(self) -> None:
        task = asyncio.current_task()
        if task is not None:
            self._inside.add(task)

    async def __aexit__(self, *_: object) -> None:
        task = asyncio.current_task()
        if task is not None:
            self._inside.discard(task)

    async def end(self) -> None:
        """Cancel all of them, and wait for their end."""
        for task in self._inside:
            task.cancel()
        await asyncio.gather(*self._inside, return_exceptions=True)
