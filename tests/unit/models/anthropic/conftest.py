from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from pydantic import SecretStr

from polos_service.models.anthropic.presets import ANTHROPIC
from polos_service.models.preset import Account
from polos_service.models.remote import Remote
from tests.support.mock_anthropic import MockAnthropic
from tests.support.models import KEY


@pytest.fixture
async def provider() -> AsyncIterator[MockAnthropic]:
    """Give a provider of the Messages API that answers what a test tells it to."""
    async with MockAnthropic() as provider:
        yield provider


@pytest.fixture
async def model(provider: MockAnthropic) -> AsyncIterator[Remote]:
    """Give a model that is asked there, with a key."""
    model = Remote(ANTHROPIC, Account(base_url=provider.url, key=SecretStr(KEY)))
    yield model
    await model.close()
