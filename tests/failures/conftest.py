"""Fixtures of the tests of failing providers."""

from __future__ import annotations

import pytest

from polos_service.errors import StepError
from polos_service.runs.retries import Backoff


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Record the seconds between tries, and do not spend them."""
    asked: list[float] = []

    def pause(self: Backoff, failures: int, error: StepError, left: float) -> float | None:
        seconds = before(self, failures, error, left)
        if seconds is None:
            return None
        asked.append(seconds)
        return 0.0

    before = Backoff.pause
    monkeypatch.setattr(Backoff, "pause", pause)
    return asked
