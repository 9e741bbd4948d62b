"""Fixtures that several folders of tests use."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.support.mock_provider import MockProvider


@pytest.fixture
async def provider() -> AsyncIterator[MockProvider]:
    """Give a model provider that answers what a test tells it to, over HTTP."""
    async with MockProvider() as provider:
        yield provider
