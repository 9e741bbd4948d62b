"""Fixtures that several folders of tests use."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from polos_client.calls import connection as connection_module
from polos_service import logs
from tests.support.mock_provider import MockProvider
from tests.support.process import PATIENCE


@pytest.fixture(autouse=True)
def logging() -> None:
    """Log to standard error: a test that captures logs would leave a log on standard output."""
    logs.log_to_stderr()


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let clients wait for a service on a machine that is busy."""
    monkeypatch.setattr(connection_module, "PATIENCE", PATIENCE)


@pytest.fixture
async def provider() -> AsyncIterator[MockProvider]:
    """Give a model provider that answers what a test tells it to, over HTTP."""
    async with MockProvider() as provider:
        yield provider
