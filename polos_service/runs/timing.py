"""Finds code that measures time itself beside a wait: its time begins anew when its run goes on."""

from __future__ import annotations

import asyncio
import gc
import inspect
from collections.abc import Iterable
from types import CoroutineType
from typing import Any

from polos_service.logs import get_logger

WAITS = {
    asyncio.wait.__code__: "asyncio.wait",
    asyncio.wait_for.__code__: "asyncio.wait_for",  # noqa: TID251 - looked for, not called
}
"""The coroutines that wait for at most the seconds that their variable `timeout` says."""

RUNS = "polos_service.runs."
"""The modules whose code is not a user's."""

ADVICE = (
    "asyncio measures the time of this process, and starts again when a parked run continues: use "
    "ctx.step.suspend(..., timeout=...), or race ctx.step.wait_for against the step"
)

_told: set[tuple[str, str]] = set()
"""The workflows for which it was said, with what it was said of."""

log = get_logger(__name__)


def warn_of_timing(workflow_id: str, tasks: Iterable[asyncio.Task[Any]]) -> None:
    """Say that a task of a run measures time while the run is parked.

    It is said once for each workflow and function of asyncio.
    """
    for call in {timer for task in tasks if (timer := timer_of(task))}:
        if (workflow_id, call) not in _told:
            _told.add((workflow_id, call))
            log.warning("time_begins_anew", workflow=workflow_id, call=call, advice=ADVICE)


def timer_of(task: asyncio.Task[Any]) -> str | None:
    """Return the function of asyncio that measures time for a task; None if none does."""
    inner: Any = task.get_coro()
    while inspect.iscoroutine(inner) and not is_of_a_run(inner):
        code = inner.cr_code
        if code is asyncio.sleep.__code__:
            return "asyncio.sleep"
        if code in WAITS and inspect.getcoroutinelocals(inner).get("timeout") is not None:
            return WAITS[code]
        if any(is_timeout(one) for one in gc.get_referents(inner)):
            return "asyncio.timeout"
        inner = inner.cr_await
    return None


def is_of_a_run(coroutine: CoroutineType[Any, Any, Any]) -> bool:
    """Return whether this is a step or a wait, which keeps its time in the log."""
    frame = coroutine.cr_frame
    return frame is not None and frame.f_globals["__name__"].startswith(RUNS)


def is_timeout(referent: object) -> bool:
    """Return whether this is how a coroutine leaves the block of an `asyncio.timeout` that ends."""
    # The block is on the stack of the coroutine's frame, as its method `__aexit__`.
    block = getattr(referent, "__self__", None)
    return isinstance(block, asyncio.Timeout) and block.when() is not None
