"""Ends tasks for certain, and sees the failures that nobody awaits."""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from typing import Any

AGAIN = 1.0
"""Seconds after which a task that is not done is cancelled again."""


async def cancel_until_done(tasks: Collection[asyncio.Task[Any]]) -> None:
    """Cancel tasks, and cancel them again until they are done.

    One cancellation can get lost: `asyncio.wait_for` of Python 3.11, which libraries use,
    returns its result instead of raising if both come at once. The task then continues.
    """
    left = set(tasks)
    while left:
        for task in left:
            task.cancel()
        _, left = await asyncio.wait(left, timeout=AGAIN)


def seen(done: asyncio.Future[Any]) -> None:
    """Mark a failure as seen, as a callback of a future that perhaps nobody awaits."""
    if not done.cancelled():
        done.exception()
