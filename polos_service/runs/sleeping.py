"""Finds code that sleeps beside a wait: its sleep does not keep the run from being parked."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any

from polos_service.logs import get_logger
from polos_service.runs.clock import SystemClock

_told: set[str] = set()
"""The workflows for which it was said."""

log = get_logger(__name__)


def warn_of_sleep(workflow_id: str, tasks: Iterable[asyncio.Task[Any]]) -> None:
    """Say once for each workflow that a task of its run sleeps while the run is parked."""
    if workflow_id not in _told and any(sleeps(task) for task in tasks):
        _told.add(workflow_id)
        log.warning(
            "sleep_does_not_keep_a_run",
            workflow=workflow_id,
            advice="asyncio.sleep begins anew when the run goes on: use ctx.step.wait_for",
        )


def sleeps(task: asyncio.Task[Any]) -> bool:
    """Return whether a task is in `asyncio.sleep`, other than in a timer of the run."""
    inner: Any = task.get_coro()
    while inner is not None:
        code = getattr(inner, "cr_code", None)
        if code is asyncio.sleep.__code__:
            return True
        if code is SystemClock.sleep.__code__:
            return False
        inner = getattr(inner, "cr_await", None)
    return False
