"""Tasks that run to their end even if their caller is cancelled."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar

from polos_service.cancelling import cancel_until_done
from polos_service.logs import get_logger

T = TypeVar("T")

log = get_logger(__name__)


class ShieldedTasks:
    """Holds the tasks until they are done."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[Any]] = set()

    def spawn(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Begin work that nobody awaits; its failure is logged."""
        task = self.begin(work)
        task.add_done_callback(report)
        return task

    def begin(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Begin work that continues even if the caller that awaits it is cancelled."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)
        return task

    async def finish(
        self, work: Coroutine[Any, Any, T], undo: Callable[[T], Awaitable[None]] | None = None
    ) -> T:
        """Do work to its end, even if the caller is cancelled meanwhile.

        Args:
            work: what is done.
            undo: undoes the work, given its result, if the caller was cancelled.

        """
        task = self.begin(work)
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            if undo is not None:
                self.spawn(taken_back(task, undo))
            raise

    async def settle(self, patience: float) -> None:
        """Wait until everything is done; cancel what is not done after so many seconds."""
        now = asyncio.get_running_loop().time
        end = now() + patience
        while self._tasks and now() < end:
            await asyncio.wait(self._tasks, timeout=end - now())
        while self._tasks:
            await cancel_until_done(self._tasks)

    def _done(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            task.exception()  # seen: who was cancelled does not ask for it


def report(task: asyncio.Task[Any]) -> None:
    """Log why a task failed."""
    if not task.cancelled() and (error := task.exception()) is not None:
        log.warning("background_task_failed", error=str(error) or type(error).__name__)


async def taken_back(task: asyncio.Task[T], undo: Callable[[T], Awaitable[None]]) -> None:
    """Undo what the task did."""
    await asyncio.wait({task})
    if not task.cancelled() and task.exception() is None:
        await undo(task.result())
