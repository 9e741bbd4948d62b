"""`stream.partial` of agents at each provider API, over a connection that is cut."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from polos_client.calls.client import PolosClient
from polos_client.define.agent import Agent
from polos_client.define.tool import tool
from tests.support import mock_answers, mock_anthropic, mock_responses
from tests.support.drafts import precedes
from tests.support.fake_service import Link
from tests.support.mock_answers import Part
from tests.support.mock_anthropic import MockAnthropic
from tests.support.mock_provider import MockProvider
from tests.support.reader import Reader
from tests.support.service import serving, until

PIECES = (
    '{"item": "gr',
    "ün",
    "er \\u00",
    'e9 tea", "prices": [1',
    "2.5",
    ', 3], "rest"',
    ": null}",
)
WHOLE = json.loads("".join(PIECES))
HALF = {"item": "grüner "}
LOST = {"item": "coffee"}


class Order(BaseModel):
    item: str
    prices: list[float]
    rest: str | None


@tool
def stock(item: str) -> int:
    return 3


@dataclass
class Place:
    """A provider of one API, and an agent at it."""

    mock: MockProvider
    api: str

    @property
    def agent(self) -> Agent:
        name = "anthropic" if self.api == "messages" else "openai"
        api = None if self.api == "messages" else self.api
        at: Any = {"provider_base_url": self.mock.url, "provider_llm_api": api}
        return Agent("a", name, "m", tools=[stock], output_schema=Order, **at)

    def parts(self, *pieces: str, asks: bool = False) -> Sequence[Part]:
        """Return an answer that says these pieces; `asks` if it then calls the tool."""
        told: Any = ("stock", {"item": "tea"})
        if self.api == "messages":
            blocks = [mock_anthropic.say(*pieces), *([mock_anthropic.call(*told)] if asks else [])]
            return mock_anthropic.answer(mock_anthropic.start(), *blocks)
        if self.api == "responses":
            items = [mock_responses.say(*pieces), *([mock_responses.call(*told)] if asks else [])]
            return [mock_responses.responses(*items)]
        parts = [mock_answers.say(*pieces), *([mock_answers.call(*told)] if asks else [])]
        return [*parts, mock_answers.finish("tool_calls" if asks else "stop")]

    def says(self, *pieces: str, asks: bool = False) -> None:
        self.mock.reply(*self.parts(*pieces, asks=asks))

    def says_up_to(self, piece: str, *pieces: str, then: Part) -> None:
        """Answer with these pieces; after `piece` comes `then`."""
        actions = [action for part in self.parts(*pieces) for action in part.actions]
        encoded = json.dumps(piece, ensure_ascii=False).encode()
        at = next(at for at, one in enumerate(actions, 1) if encoded in bytes(one))  # type: ignore[arg-type]
        rest = () if then.ends else actions[at:]
        self.mock.reply(Part((*actions[:at], *then.actions, *rest), ends=True))


@pytest.fixture(params=["chat_completions", "responses", "messages"])
async def place(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Place]:
    monkeypatch.setenv("OPENAI_API_KEY", "unused")
    monkeypatch.setenv("ANTHROPIC_API_KEY", "unused")
    api = request.param
    async with MockAnthropic() if api == "messages" else MockProvider() as mock:
        yield Place(mock, api)


async def test_drafts_of_each_api_over_a_retry_a_repair_and_a_cut_connection(
    tmp_path: Path, place: Place
) -> None:
    release = asyncio.Event()
    place.says("12 kinds, ", "[let me look].", asks=True)
    place.says("```json\n", *PIECES, "\n```")
    place.says_up_to('ffee"', '{"item": "co', 'ffee"', "}", then=mock_answers.hang_up())
    place.says_up_to(PIECES[2], *PIECES, then=mock_answers.hold(release))
    agent = place.agent
    async with (
        serving(tmp_path, agent) as served,
        Link(served.client.address).open() as link,
        PolosClient(link.address) as client,
    ):
        stream = await agent.stream(client, "Go.")
        async with Reader(stream.partial) as read:
            await read.saw(lambda draft: draft == HALF)
            link.cut()
            await until(lambda: link.accepted > 1, "the reader has connected again")
            release.set()
            found = await read.all()
        assert found[-1] == WHOLE == json.loads(await stream.text())
        assert (await stream.result()).result == Order(**WHOLE)
        again = [draft async for draft in stream.partial]
    assert len(place.mock.requests) == 4
    for draft in (*found, *again):
        assert precedes(draft, WHOLE) or precedes(draft, LOST)
    assert again[-1] == WHOLE
