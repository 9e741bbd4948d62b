"""How often a step is tried, and how far apart."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Protocol

from polos_service.errors import StepError

BACKOFF_BASE = 0.5
"""Seconds before the second try, doubled before each further one."""

BACKOFF_CAP = 8.0
"""Seconds before any further try at most, unless the provider asks for more."""

MAX_DOUBLINGS = 10
"""Doublings of the pause that are computed: far more than reach BACKOFF_CAP."""

RETRY_AFTER_LIMIT = 300.0
"""Seconds that a provider may ask to wait; a run is not kept for longer."""


class Retries(Protocol):
    """How often a step is tried, and how far apart."""

    @property
    def recorded(self) -> bool:
        """Whether each retry is told in the log before its pause, and counts across crashes.

        Else a retry is silent as long as the attempt has emitted nothing, and told after its pause
        otherwise; failures count while one process works on the step.
        """
        ...

    def pause(self, failures: int, error: StepError, left: float) -> float | None:
        """Return the seconds before the next try; None if there is none.

        Args:
            failures: how often the step has failed, this time included.
            error: why it failed.
            left: seconds until the run's deadline.

        """
        ...


@dataclass(frozen=True, slots=True)
class Backoff:
    """Up to `tries` times in all, after pauses that grow and have jitter.

    It is not tried again if it is asked to pause for more than RETRY_AFTER_LIMIT.
    """

    tries: int
    recorded: bool = False

    def pause(self, failures: int, error: StepError, left: float) -> float | None:
        """Return the seconds before the next try, jitter included."""
        asked = error.retry_after or 0.0
        if failures >= self.tries or not error.retryable or asked > min(RETRY_AFTER_LIMIT, left):
            return None
        backoff = min(BACKOFF_CAP, BACKOFF_BASE * 2.0 ** min(failures - 1, MAX_DOUBLINGS))
        jitter = random.uniform(0.5, 1.0)  # noqa: S311 - nobody gains by guessing it
        return max(backoff * jitter, asked)


@dataclass(frozen=True, slots=True)
class Growing:
    """Up to `tries` times in all, after `base` seconds, twice that, and so on up to `limit`."""

    tries: int
    base: float
    limit: float
    recorded: bool = True

    def pause(self, failures: int, error: StepError, left: float) -> float | None:
        """Return the seconds before the next try."""
        pause = min(self.base * 2.0 ** min(failures - 1, 100), self.limit)
        return None if failures >= self.tries or not error.retryable or pause > left else pause


ONCE = Backoff(1)
"""One try."""
