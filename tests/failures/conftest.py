"""Fixtures of the tests of failing providers."""

from __future__ import annotations

import pytest

from polos_service.errors import StepError
from polos_service.runs import retries


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Record the seconds between tries, and do not spend them."""
    asked: list[float] = []

    pause = retries.Backoff.pause

    def recorded(
        self: retries.Backoff, failures: int, error: StepError, left: float
    ) -> float | None:
        seconds = pause(self, failures, error, left)
        if seconds is None:
            return None
        asked.append(seconds)
        return 0.0

    monkeypatch.setattr(retries.Backoff, "pause", recorded)
    return asked
