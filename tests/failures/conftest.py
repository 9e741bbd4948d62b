"""Fixtures of the tests of failing providers."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from polos_service.runs import context, step
from tests.support.mock_provider import MockProvider


@pytest.fixture
async def provider() -> AsyncIterator[MockProvider]:
    async with MockProvider() as provider:
        yield provider


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Record the seconds between tries, and do not spend them."""
    asked: list[float] = []

    def pause(tries: int, retry_after: float | None) -> float:
        asked.append(step.pause(tries, retry_after))
        return 0.0

    monkeypatch.setattr(context, "pause", pause)
    return asked
