"""What a token costs until it is read, counted in calls and not in time."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

import polos_service
from bench.answers import CHAT, MESSAGES, REASONING, RESPONSES, TEXT, USAGE, Form
from polos_service.models import Model, ModelRequest
from polos_service.models.built_in import BUILT_IN
from polos_service.models.configured import ProviderConfig
from tests.support.mock_answers import EndOfBody, Part, hold, raw
from tests.support.mock_provider import MockProvider
from tests.support.models import REQUEST

ROOT = str(Path(polos_service.__file__).parent)

ALONE, MANY = 1, 10
"""Tokens that come in one piece."""

FEW_PIECES, MORE_PIECES = 20, 60
"""Pieces of two answers: what the longer one costs more is what its further tokens cost."""

CALLS = {
    ("chat", ALONE): 38.0,
    ("chat", MANY): 23.7,
    ("usage", ALONE): 55.1,
    ("usage", MANY): 40.7,
    ("reasoning", ALONE): 42.0,
    ("reasoning", MANY): 25.7,
    ("responses", ALONE): 45.0,
    ("responses", MANY): 31.5,
    ("anthropic", ALONE): 48.0,
    ("anthropic", MANY): 33.5,
}
"""Calls a token may cost: as many as at commit 51f810a, counted in the same way; for what that
commit did not read, reasoning and other APIs, as many as when it was read first."""

FORMS = {
    "chat": CHAT,
    "usage": USAGE,
    "reasoning": REASONING,
    "responses": RESPONSES,
    "anthropic": MESSAGES,
}


class Listener:
    """Hears the answer, and lets the provider send the next piece when it has heard one."""

    def __init__(self, pieces: int, tokens: int) -> None:
        self.heard = [asyncio.Event() for _ in range(pieces)]
        self._tokens = tokens
        self._count = 0

    async def text(self, piece: str) -> None:
        self._count += 1
        if self._count % self._tokens == 0:
            self.heard[self._count // self._tokens - 1].set()

    async def reasoning(self, piece: str) -> None:
        await self.text(piece)


class Counter:
    """Counts the calls of the service's functions, and those that they make of built-in ones."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, frame: FrameType, event: str, _: Any) -> None:
        if event in ("call", "c_call") and frame.f_code.co_filename.startswith(ROOT):
            self.calls += 1


@contextmanager
def counting() -> Iterator[Counter]:
    """Count the calls in this thread for as long as the block."""
    counter, before = Counter(), sys.getprofile()
    sys.setprofile(counter)
    try:
        yield counter
    finally:
        sys.setprofile(before)


async def calls_of(
    model: Model, request: ModelRequest, provider: MockProvider, form: Form, *sizes: int
) -> int:
    """Read an answer of some pieces with some tokens each; return the calls that it took."""
    pieces, tokens = sizes
    listener = Listener(pieces, tokens)
    piece = (form.before + TEXT + form.after) * tokens
    sent = [part for heard in listener.heard for part in (raw(piece), hold(heard))]
    ending = Part((form.ending(pieces * tokens), EndOfBody()), ends=True)
    opening = [raw(form.opening)] if form.opening else []
    provider.reply(*opening, *sent, ending)
    with counting() as counter:
        await asyncio.wait_for(model.answer(request, listener), 60)
    return counter.calls


@pytest.mark.parametrize(("name", "tokens"), CALLS, ids=str)
async def test_a_token_costs_no_more_calls_than_it_did(
    provider: MockProvider, name: str, tokens: int
) -> None:
    model = BUILT_IN["anthropic" if name == "anthropic" else "openai"](ProviderConfig())
    api = "responses" if name == "responses" else None
    request = replace(REQUEST, base_url=provider.url, api=api)
    few, more = [
        await calls_of(model, request, provider, FORMS[name], pieces, tokens)
        for pieces in (FEW_PIECES, MORE_PIECES)
    ]
    await model.close()
    assert (more - few) / ((MORE_PIECES - FEW_PIECES) * tokens) <= CALLS[name, tokens]
