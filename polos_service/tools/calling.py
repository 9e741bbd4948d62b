"""Calling a function of a workflow: the workflow itself, or that of a step.

It runs in a task of its own, or in a thread, and whatever it raises is a value from then on: code
that cancels its own task or calls `sys.exit()` ends nothing but itself.
"""

from __future__ import annotations

import asyncio
import inspect
import threading
from collections.abc import Awaitable, Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from polos_service.logs import get_logger
from polos_service.tools.isolation import start_tool
from polos_service.tools.local import in_thread

PATIENCE = 4.0
"""Seconds that a cancelled function gets to clean up; less than a cancelled run gets."""

LEFT_LIMIT = 100
"""Threads that may work on for functions that nobody waits for any more. As long as there are so
many, no function begins in a thread."""

log = get_logger(__name__)

_left: set[threading.Thread] = set()


class TooManyThreadsError(Exception):
    """Too many functions work on in threads although nobody waits for them."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a function returned, or what it raised if that is not None."""

    value: Any = None
    error: BaseException | None = None


async def outcome_of(
    function: Callable[[], Any], *, is_async: bool, limit: float | None = None
) -> Outcome:
    """Call a function; what it returns is awaited if it can be.

    Args:
        function: what is called.
        is_async: True if calling it gives an awaitable at once; else it is called in a thread.
        limit: seconds that it may take; None: any time.

    Raises:
        TimeoutError: it took longer. It was cancelled; a thread is left to itself.
        TooManyThreadsError: it needs a thread, and LEFT_LIMIT threads were left to themselves.

    """
    if not is_async and len(left()) >= LEFT_LIMIT:
        raise TooManyThreadsError(
            f"{LEFT_LIMIT} functions still run in threads although nothing waits for them any more."
        )
    task = start_tool(_settled(function, is_async=is_async))
    try:
        done, _ = await asyncio.wait({task}, timeout=limit)
    finally:
        if not task.done():
            task.cancel()
            await asyncio.wait({task}, timeout=PATIENCE)
    if not done:
        raise TimeoutError
    return Outcome(error=asyncio.CancelledError()) if task.cancelled() else task.result()


def left() -> set[threading.Thread]:
    """Return the threads that work on for functions that nobody waits for any more."""
    _left.difference_update([one for one in _left if not one.is_alive()])
    return _left


async def _settled(function: Callable[[], Any], *, is_async: bool) -> Outcome:
    if is_async:
        return await _awaited(function)
    with _tracked() as began:
        outcome = await in_thread(lambda: _called(function, began))
    if outcome.error is None and inspect.isawaitable(outcome.value):
        return await _awaited(lambda: outcome.value)
    return outcome


async def _awaited(function: Callable[[], Awaitable[Any]]) -> Outcome:
    try:
        return Outcome(await function())
    except BaseException as error:  # noqa: BLE001 - it is a value from here on
        return Outcome(error=error)


def _called(function: Callable[[], Any], began: Callable[[], None]) -> Outcome:
    began()
    try:
        return Outcome(function())
    except BaseException as error:  # noqa: BLE001 - as above
        return Outcome(error=error)


@contextmanager
def _tracked() -> Generator[Callable[[], None]]:
    """Count the thread that is begun in the block as left if the block is cut off."""
    threads: list[threading.Thread] = []
    try:
        yield lambda: threads.append(threading.current_thread())
    except asyncio.CancelledError:
        _left.update(one for one in threads if one.is_alive())
        if threads:
            log.warning("function_outlives_its_step", threads=len(left()), limit=LEFT_LIMIT)
        raise
