from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from pydantic import SecretStr

from polos_service.models.remote import Remote
from tests.support.mock_provider import MockProvider
from tests.support.models import KEY, openai


@pytest.fixture
async def model(provider: MockProvider) -> AsyncIterator[Remote]:
    """Give a model that is asked at the mock provider, with a key."""
    model = openai(base_url=provider.url, api_key=SecretStr(KEY))
    yield model
    await model.close()
