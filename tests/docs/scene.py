"""Agents whose model plays what a test says, with either provider.

The provider "scripted" plays it by itself; the provider "openai" is sent it over HTTP, by a
mock of an OpenAI-compatible server. A program cannot tell them apart.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from polos import Agent, Tool, scripted
from tests.support import mock_answers as mock
from tests.support.mock_provider import MockProvider


@dataclass(frozen=True)
class Ask:
    """The model asks for a tool."""

    tool: str
    arguments: dict[str, Any]


@dataclass(frozen=True)
class Refuse:
    """The provider does not take the service's key."""


Turn = Sequence[str | Ask | Refuse]
"""What one model call plays: its text piece by piece, and the tools it asks for."""

READ, WRITTEN = 7, 3
"""Tokens of each model call."""


class Scene:
    """Makes agents, with one of the two providers."""

    def __init__(self, provider: MockProvider | None) -> None:
        self._provider = provider

    def model(self, *turns: Turn) -> dict[str, Any]:
        """Return what an Agent must be given so that its model plays the turns, once."""
        if self._provider is None:
            return {"provider": "scripted", "model": scripted.script(*map(scripted_turn, turns))}
        for turn in turns:
            self._provider.reply(*http_turn(turn))
        url = self._provider.url
        return {"provider": "openai", "model": "mock", "provider_base_url": url}

    def agent(self, *turns: Turn, id: str = "assistant", tools: Iterable[Tool] = ()) -> Agent:
        """Return an agent whose model plays the turns, once."""
        return Agent(id=id, tools=tools, **self.model(*turns))


@asynccontextmanager
async def scene(provider: str) -> AsyncIterator[Scene]:
    """Make a scene with the provider of that name."""
    if provider == "scripted":
        yield Scene(None)
        return
    async with MockProvider() as mocked:
        yield Scene(mocked)


def scripted_turn(turn: Turn) -> scripted.Turn:
    """Return the turn for the provider "scripted"."""
    spent = scripted.usage(input_tokens=READ, output_tokens=WRITTEN)
    return scripted.turn(*map(scripted_part, turn), spent)


def scripted_part(part: str | Ask | Refuse) -> scripted.Part:
    """Return the part for the provider "scripted"."""
    match part:
        case str():
            return scripted.say([part])
        case Ask():
            return scripted.call(part.tool, **part.arguments)
        case Refuse():
            return scripted.fail("model_authentication", "no such key", retryable=False)


def http_turn(turn: Turn) -> list[mock.Part]:
    """Return the turn as the mock server sends it."""
    parts = [http_part(index, part) for index, part in enumerate(turn)]
    if any(part.ends for part in parts):
        return parts
    reason = "tool_calls" if any(part.calls for part in parts) else "stop"
    return [*parts, mock.finish(reason, usage=mock.tokens(READ, WRITTEN))]


def http_part(index: int, part: str | Ask | Refuse) -> mock.Part:
    """Return the part as the mock server sends it."""
    match part:
        case str():
            return mock.say(part)
        case Ask():
            return mock.call(part.tool, part.arguments, call_id=f"call_{index}", index=index)
        case Refuse():
            return mock.status(401, {"error": {"message": "no such key"}})
