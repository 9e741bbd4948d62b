"""What projects use: counted in the store, so that it survives a restart."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from polos_service.quotas import Quota, exceeded

SECOND = 1_000_000_000
"""Nanoseconds in a second."""

MINUTE = 60
"""Seconds for which the starts of a project are counted together."""

DAY = 24 * 3600
"""Seconds for which what a project spends is counted together: a day of UTC."""

RETRY = 1.0
"""Seconds after which a start is worth another try, where others have to end first."""


@dataclass(frozen=True, slots=True)
class Spent:
    """What the model calls of a project used in a day: tokens, and millionths of a dollar."""

    tokens: int = 0
    usd_micros: int = 0


class UsageStore(Protocol):
    """What projects spend. Every method may raise StoreUnavailable."""

    async def spend(self, project: str, day: int, spent: Spent) -> None:
        """Add to what a project has spent in a day, counted from the epoch in UTC.

        It is durable when this returns, and survives all processes.
        """
        ...

    async def spent(self, project: str, day: int) -> Spent:
        """Return what all processes have added for a project and a day; for today or yesterday."""
        ...


def minute_of(time: int) -> int:
    """Return the minute of a time in nanoseconds since the epoch, counted from the epoch."""
    return time // (MINUTE * SECOND)


def day_of(time: int) -> int:
    """Return the day of a time in nanoseconds since the epoch, counted from the epoch in UTC."""
    return time // (DAY * SECOND)


def check_queued(project: str, quota: Quota, queued: int) -> None:
    """Refuse a start while a project has as many runs queued as it may.

    Raises:
        QuotaExceeded: it has.

    """
    if quota.queued is not None and queued >= quota.queued:
        what = (
            f"{queued} runs of the project are queued. This one was not started; try again later."
        )
        raise exceeded("queued", quota.queued, project, what, retry_after=RETRY)


def check_starts(project: str, quota: Quota, starts: int, now: int) -> None:
    """Refuse a start after as many in this minute as a project may make.

    `now` is in nanoseconds since the epoch.

    Raises:
        QuotaExceeded: there were as many.

    """
    if quota.starts_per_minute is not None and starts >= quota.starts_per_minute:
        left = MINUTE - now % (MINUTE * SECOND) / SECOND
        what = f"{starts} runs were started in this minute. Try again in {left:.0f} s."
        raise exceeded(
            "starts_per_minute", quota.starts_per_minute, project, what, retry_after=left
        )


def check_stored(project: str, quota: Quota, stored: int) -> None:
    """Refuse a start while a project stores as many bytes as it may.

    Raises:
        QuotaExceeded: it does.

    """
    if quota.stored_bytes is not None and stored >= quota.stored_bytes:
        what = f"{stored} bytes are stored. Delete ended runs, or shorten POLOS_RETENTION."
        raise exceeded("stored_bytes", quota.stored_bytes, project, what)
