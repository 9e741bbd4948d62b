"""How tests ask a model, and look at a call that fails."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

import pytest
from pydantic import SecretStr

from polos_service.errors import StepError
from polos_service.models import Model, ModelAnswer, ModelRequest, Output
from polos_service.models.configured import ProviderConfig
from polos_service.models.messages import Message, Text
from polos_service.models.openai.presets import OPENAI, PRESETS
from polos_service.models.preset import Account
from polos_service.models.remote import Remote

KEY = "wunderbar-9f8e7d6c5b4a"
"""A key that looks like none, and must not be told all the same."""


HI = Message(role="user", parts=(Text(text="Hi"),))
"""What models are asked."""

REQUEST = ModelRequest(model="mock", messages=[HI])


class Heard(list[str]):
    """The pieces of text that a model said, and of its reasoning."""

    def __init__(self) -> None:
        super().__init__()
        self.thoughts: list[str] = []

    async def text(self, piece: str) -> None:
        self.append(piece)

    async def reasoning(self, piece: str) -> None:
        self.thoughts.append(piece)


def provider_at(name: str, url: str, key: str = "", **more: str) -> Remote:
    """Return a provider of the table whose variables say this base URL and key, and more."""
    preset = PRESETS[name]
    told = {preset.url_variable or "": url, preset.key_variable or "": key, **more}
    return Remote(preset, ProviderConfig(environment=told).account(preset))


def openai(
    base_url: str | None = None,
    api_key: SecretStr | None = None,
    keys: Mapping[str, SecretStr] | None = None,
    headers: Mapping[str, str] | None = None,
    switches: Mapping[str, Sequence[str]] | None = None,
) -> Remote:
    """Return the provider `openai`, configured like this."""
    account = Account(
        base_url=base_url,
        key=api_key,
        keys=keys or {},
        headers=headers or {},
        switches=switches or {},
    )
    return Remote(OPENAI, account)


async def ask(model: Model, /, **fields: Any) -> tuple[ModelAnswer, Heard]:
    """Return the answer to a request with these fields, and what was heard meanwhile."""
    heard = Heard()
    request = ModelRequest(**{"model": "mock", "messages": [HI], **fields})
    return await model.answer(request, heard), heard


async def failure(
    model: Model, output: Output | None = None, *, request: ModelRequest = REQUEST
) -> StepError:
    with pytest.raises(StepError) as raised:
        await asyncio.wait_for(model.answer(request, output or Heard()), 20)
    assert_tells_no_secret(raised.value)
    return raised.value


def assert_tells_no_secret(error: BaseException) -> None:
    """Look through the error, its attributes and every error that travels along with it."""
    assert error.__cause__ is None
    assert error.__context__ is None
    shown = f"{error} {error!r} {error.args} {vars(error)}"
    assert KEY not in shown
    assert "sk-" not in shown
