"""How tests look at the failure of a model call."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from polos_service.errors import StepError
from polos_service.models import ModelRequest
from polos_service.models.openai import OpenAI

KEY = "wunderbar-9f8e7d6c5b4a"
"""A key that looks like none, and must not be told all the same."""


async def ignore(text: str) -> None:
    pass


REQUEST = ModelRequest(model="mock", messages=[{"role": "user", "content": "Hi"}])


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
