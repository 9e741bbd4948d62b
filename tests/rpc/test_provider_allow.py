"""Agents reach the addresses only that the operator allows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from polos.v1.error_pb2 import FailureReason
from polos_client.define.agent import Agent
from polos_client.errors import DefinitionError
from tests.support.mock_answers import say
from tests.support.mock_provider import MockProvider
from tests.support.service import answer_of, serving


async def test_agent_at_an_allowed_address_runs(tmp_path: Path, provider: MockProvider) -> None:
    provider.reply(say("Hi."))
    agent = Agent("allowed", "openai", "m", provider_base_url=provider.url)
    async with serving(tmp_path, agent, provider_allow=[provider.url]) as served:
        assert (await agent.run(served.client, "Go.")).result == "Hi."


async def test_service_with_an_agent_at_another_address_does_not_start(tmp_path: Path) -> None:
    agent = Agent("other", "openai", "m", provider_base_url="http://me:secret@10.0.0.1/v1")
    with pytest.raises(DefinitionError) as caught:
        async with serving(tmp_path, agent, provider_allow=["api.openai.com"]):
            pass
    assert str(caught.value) == (
        "The agent 'other': the address 10.0.0.1 is not among those that POLOS_PROVIDER_ALLOW "
        "allows: change the agent's provider or provider_base_url, or add the address to the "
        "setting."
    )


async def test_run_from_before_does_not_reach_its_address(
    tmp_path: Path, provider: MockProvider
) -> None:
    def agent(url: str | None, **more: Any) -> Agent:
        return Agent("moved", "openai", "m", provider_base_url=url, **more)

    limited: dict[str, Any] = {"max_runs": 1}
    blocker = Agent("blocker", "openai", "m", provider_base_url=provider.url)
    async with serving(tmp_path, agent(provider.url), blocker, **limited) as served:
        await served.start(blocker)
        await provider.received()
        run_id = await served.start(agent(provider.url))
    before = len(provider.requests)
    allowed: dict[str, Any] = {"provider_allow": ["api.openai.com"], "openai_api_key": "key"}
    async with serving(tmp_path, agent(None), **allowed) as served:
        error = answer_of(await served.events(run_id)).error
    assert error.reason == FailureReason.FAILURE_REASON_MODEL_BAD_REQUEST
    assert "is not among those that POLOS_PROVIDER_ALLOW allows" in error.message
    assert len(provider.requests) == before
