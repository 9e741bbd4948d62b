from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
from pydantic import SecretStr

from polos_service.models import ModelAnswer
from polos_service.models.remote import Remote
from tests.support.mock_provider import MockProvider
from tests.support.models import KEY, Heard, ask, openai

Ask = Callable[..., Awaitable[tuple[ModelAnswer, Heard]]]


@pytest.fixture
async def model(provider: MockProvider) -> AsyncIterator[Remote]:
    """Give a model that is asked at the mock provider, with a key."""
    model = openai(base_url=provider.url, api_key=SecretStr(KEY))
    yield model
    await model.close()


@pytest.fixture
def answered(model: Remote) -> Ask:
    """Give a function that asks the model through the Responses API."""

    async def answered(**fields: Any) -> tuple[ModelAnswer, Heard]:
        return await ask(model, api="responses", **fields)

    return answered
