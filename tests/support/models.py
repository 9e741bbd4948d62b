"""How tests ask a model, and look at a call that fails."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from polos_service.errors import StepError
from polos_service.models import ModelAnswer, ModelRequest
from polos_service.models.openai import OpenAI

KEY = "wunderbar-9f8e7d6c5b4a"
"""A key that looks like none, and must not be told all the same."""


async def ignore(text: str) -> None:
    pass


REQUEST = ModelRequest(model="mock", messages=[{"role": "user", "content": "Hi"}])


class Heard(list[str]):
    """The pieces of text that a model emitted."""

    async def emit(self, text: str) -> None:
        self.append(text)


async def ask(model: OpenAI, **fields: Any) -> tuple[ModelAnswer, list[str]]:
    """Return the answer to a request with these fields, and what was emitted."""
    heard = Heard()
    request = ModelRequest(model="mock", messages=[{"role": "user", "content": "Hi"}], **fields)
    return await model.answer(request, heard.emit), heard


async def failure(
    model: OpenAI, emit: Callable[[str], Any] = ignore, *, request: ModelRequest = REQUEST
) -> StepError:
    with pytest.raises(StepError) as raised:
        await asyncio.wait_for(model.answer(request, emit), 20)
    assert_tells_no_secret(raised.value)
    return raised.value


def assert_tells_no_secret(error: BaseException) -> None:
    """Look through the error, its attributes and every error that travels along with it."""
    assert error.__cause__ is None
    assert error.__context__ is None
    shown = f"{error} {error!r} {error.args} {vars(error)}"
    assert KEY not in shown
    assert "sk-" not in shown
