"""Fixtures of the tests of failing providers."""

from __future__ import annotations

import pytest

from polos_service.runs import attempt, context


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Record the seconds between tries, and do not spend them."""
    asked: list[float] = []

    def pause(tries: int, retry_after: float | None) -> float:
        asked.append(attempt.pause(tries, retry_after))
        return 0.0

    monkeypatch.setattr(context, "pause", pause)
    return asked
