"""Removes runs that ended long ago, in small pieces between other work."""

from __future__ import annotations

from polos_service.logs import get_logger
from polos_service.runs.clock import Clock
from polos_service.runs.frame import SECOND
from polos_service.store import Runs

PERIOD = 60.0
"""Seconds between two looks for runs that have expired."""

PAUSE = 0.01
"""Seconds between two pieces, in which others commit."""

log = get_logger(__name__)


async def retain(store: Runs, clock: Clock, seconds: float) -> None:
    """Remove, for ever, what ended more than so many seconds ago."""
    while True:
        try:
            while await store.expire(clock.now() - round(seconds * SECOND)):
                await clock.sleep(PAUSE)
        except Exception:
            log.exception("retention_failed")
        await clock.sleep(PERIOD)
