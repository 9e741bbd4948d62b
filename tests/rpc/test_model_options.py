"""Which parameters of a model call a caller may choose, and which only the agent's author."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from polos_client.define.agent import Agent
from polos_client.errors import InvalidRequest
from tests.support.mock_answers import say
from tests.support.mock_provider import MockProvider
from tests.support.service import serving

OWN = {"top_k": 40, "min_p": 0.1, "extra_headers": {"X-Team": "blue"}}

AGENT = Agent("tuned", "openai", "m", temperature=0.5, provider_kwargs=OWN)


async def test_a_caller_chooses_what_the_operator_allows_and_before_the_agent(
    tmp_path: Path, provider: MockProvider
) -> None:
    provider.reply(say("Hi."))
    known: dict[str, Any] = {"openai_base_url": provider.url, "caller_options": ["top_k"]}
    async with serving(tmp_path, AGENT, **known) as served:
        await AGENT.run(served.client, "Go.", top_k=4, seed=7)
    (request,) = provider.requests
    sent = {name: request.body.get(name) for name in ("temperature", "top_k", "min_p", "seed")}
    assert sent == {"temperature": 0.5, "top_k": 4, "min_p": 0.1, "seed": 7}
    assert request.headers["x-team"] == "blue"


@pytest.mark.parametrize("name", ["min_p", "extra_headers", "extra_body", "model"])
async def test_what_is_not_allowed_is_refused_by_its_field(
    tmp_path: Path, provider: MockProvider, name: str
) -> None:
    known: dict[str, Any] = {"openai_base_url": provider.url, "caller_options": ["top_k"]}
    async with serving(tmp_path, AGENT, **known) as served:
        options: dict[str, Any] = {"top_k": 4, name: {}}
        with pytest.raises(InvalidRequest) as raised:
            await AGENT.run(served.client, "Go.", **options)
    assert list(raised.value.violations) == [f"provider_kwargs.{name}"]
    assert provider.requests == []
