"""Agents whose model plays what a test says, with each provider.

The provider "scripted" plays it by itself; the others are sent it over HTTP, by a mock of their
server. A program cannot tell them apart.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from polos import Agent, Tool, scripted
from tests.support import mock_answers as mock
from tests.support import mock_anthropic as anthropic
from tests.support import mock_responses as responses
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


@dataclass(frozen=True)
class Spoken:
    """A provider's API, as its mock speaks it.

    Attributes:
        server: makes the mock.
        turn: returns a turn as the mock sends it.
        settings: what an agent is given to have this API used.

    """

    server: Callable[[], MockProvider]
    turn: Callable[[Turn], list[Any]]
    settings: dict[str, Any]


class Scene:
    """Makes agents, with one of the providers."""

    def __init__(self, provider: MockProvider | None, spoken: Spoken | None) -> None:
        self._provider = provider
        self._spoken = spoken

    def model(self, *turns: Turn) -> dict[str, Any]:
        """Return what an Agent must be given so that its model plays the turns, once."""
        if self._provider is None or self._spoken is None:
            return {"provider": "scripted", "model": scripted.script(*map(scripted_turn, turns))}
        for turn in turns:
            self._provider.reply(*self._spoken.turn(turn))
        return {"model": "mock", "provider_base_url": self._provider.url, **self._spoken.settings}

    def agent(self, *turns: Turn, id: str = "assistant", tools: Iterable[Tool] = ()) -> Agent:
        """Return an agent whose model plays the turns, once."""
        return Agent(id=id, tools=tools, **self.model(*turns))


@asynccontextmanager
async def scene(provider: str) -> AsyncIterator[Scene]:
    """Make a scene with a provider, one of PROVIDERS."""
    if provider == "scripted":
        yield Scene(None, None)
        return
    async with SPOKEN[provider].server() as mocked:
        yield Scene(mocked, SPOKEN[provider])


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


def chat_turn(turn: Turn) -> list[mock.Part]:
    """Return the turn as a mock of chat completions sends it."""
    parts = [chat_part(index, part) for index, part in enumerate(turn)]
    if any(part.ends for part in parts):
        return parts
    reason = "tool_calls" if any(part.calls for part in parts) else "stop"
    return [*parts, mock.finish(reason, usage=mock.tokens(READ, WRITTEN))]


def chat_part(index: int, part: str | Ask | Refuse) -> mock.Part:
    """Return the part as a mock of chat completions sends it."""
    match part:
        case str():
            return mock.say(part)
        case Ask():
            return mock.call(part.tool, part.arguments, call_id=f"call_{index}", index=index)
        case Refuse():
            return refusal()


def messages_turn(turn: Turn) -> list[mock.Part | anthropic.Block]:
    """Return the turn as a mock of the Messages API sends it."""
    parts = [messages_part(index, part) for index, part in enumerate(turn)]
    if any(isinstance(part, Refuse) for part in turn):
        return parts
    asks = any(isinstance(part, Ask) for part in turn)
    end = anthropic.finish("tool_use" if asks else "end_turn", output_tokens=WRITTEN)
    return [anthropic.start(input_tokens=READ), *parts, end]


def messages_part(index: int, part: str | Ask | Refuse) -> mock.Part | anthropic.Block:
    """Return the part as a mock of the Messages API sends it."""
    match part:
        case str():
            return anthropic.say(part)
        case Ask():
            return anthropic.call(part.tool, part.arguments, call_id=f"toolu_{index}")
        case Refuse():
            return refusal()


def responses_turn(turn: Turn) -> list[mock.Part]:
    """Return the turn as a mock of the Responses API sends it."""
    if any(isinstance(part, Refuse) for part in turn):
        return [refusal()]
    items = [responses_item(index, part) for index, part in enumerate(turn)]
    usage = {"input_tokens": READ, "output_tokens": WRITTEN, "total_tokens": READ + WRITTEN}
    return [responses.responses(*items, usage=usage)]


def responses_item(index: int, part: str | Ask | Refuse) -> responses.Item:
    """Return the part as an item of the Responses API."""
    if isinstance(part, Ask):
        return responses.call(
            part.tool, part.arguments, call_id=f"call_{index}", item_id=f"fc_{index}"
        )
    return responses.say(str(part), item_id=f"msg_{index}")


def refusal() -> mock.Part:
    """Return how a provider refuses a key."""
    return mock.status(401, {"error": {"message": "no such key"}})


SPOKEN = {
    "openai": Spoken(MockProvider, chat_turn, {"provider": "openai"}),
    "responses": Spoken(
        MockProvider, responses_turn, {"provider": "openai", "provider_llm_api": "responses"}
    ),
    "anthropic": Spoken(anthropic.MockAnthropic, messages_turn, {"provider": "anthropic"}),
}
PROVIDERS = ["scripted", *SPOKEN]
"""What a scene can be made with."""
