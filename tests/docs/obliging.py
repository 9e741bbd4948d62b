"""A provider that answers whatever the documentation asks it, over real HTTP.

It calls the first tool that it is offered, once, and then answers in three pieces.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from tests.docs.pages import README, write_files
from tests.support import mock_answers as mock
from tests.support.mock_provider import MockProvider, Received
from tests.support.process import ServiceProcess

ANSWER = ["It is 21 degrees ", "and clear ", "in Tokyo."]
SAMPLES = {"string": "Tokyo", "integer": 2}


class ObligingProvider(MockProvider):
    """The provider."""

    async def _answer(
        self, request: Received, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> bool:
        self.reply(answer_to(request.body))
        return await super()._answer(request, reader, writer)


def answer_to(body: Mapping[str, Any]) -> mock.Part:
    """Return what the model does about a request."""
    if body["messages"][-1]["role"] == "tool" or not body.get("tools"):
        return mock.say(*ANSWER)
    function = body["tools"][0]["function"]
    properties = function["parameters"]["properties"]
    return mock.call(function["name"], {k: SAMPLES[v["type"]] for k, v in properties.items()})


@asynccontextmanager
async def weather_service(folder: Path) -> AsyncIterator[dict[str, str]]:
    """Serve the README's agent, from its file in `folder`; give the environment for callers."""
    write_files(README, folder)
    async with ObligingProvider() as provider:
        model = {"OPENAI_API_KEY": "test", "OPENAI_BASE_URL": provider.url}
        async with ServiceProcess(folder / "weather.py", folder / "runs.db", **model) as service:
            yield {**model, "POLOS_ADDRESS": service.address}
