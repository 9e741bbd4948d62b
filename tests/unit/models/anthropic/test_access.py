"""The provider `anthropic`: where requests go, and what they carry."""

from __future__ import annotations

import pytest

from polos.v1.error_pb2 import FailureReason
from polos_service.models.anthropic.presets import ANTHROPIC, ANTHROPIC_URL
from polos_service.models.configured import ProviderConfig
from polos_service.models.cost import cost
from polos_service.models.remote import Remote
from polos_service.models.usage import usage_of
from tests.support.mock_anthropic import MockAnthropic, say
from tests.support.models import KEY, ask, failure


def configured(**environment: str) -> Remote:
    return Remote(ANTHROPIC, ProviderConfig(environment=environment).account(ANTHROPIC))


async def test_a_request_carries_key_version_and_the_operators_headers(
    provider: MockAnthropic,
) -> None:
    provider.reply(say("Hi"))
    model = configured(
        ANTHROPIC_API_KEY=KEY,
        ANTHROPIC_BASE_URL=provider.url,
        ANTHROPIC_CUSTOM_HEADERS="anthropic-beta: context-1m-2025-08-07",
    )
    await ask(model)
    await model.close()
    (request,) = provider.requests
    assert request.path == "/v1/messages"
    assert request.headers["x-api-key"] == KEY
    assert request.headers["anthropic-version"] == "2023-06-01"
    assert request.headers["anthropic-beta"] == "context-1m-2025-08-07"
    assert "authorization" not in request.headers


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("", "/v1/messages"),
        ("/v1", "/v1/messages"),
        ("/v1/", "/v1/messages"),
        ("/anthropic", "/anthropic/v1/messages"),
    ],
)
async def test_an_address_may_end_with_the_version(
    provider: MockAnthropic, model: Remote, path: str, expected: str
) -> None:
    provider.reply(say("Hi"))
    await ask(model, base_url=provider.url + path)
    assert provider.requests[0].path == expected


async def test_the_key_goes_to_the_configured_address_only(
    provider: MockAnthropic, model: Remote
) -> None:
    async with MockAnthropic() as other:
        other.reply(say("Hi"))
        await ask(model, base_url=other.url)
        assert "x-api-key" not in other.requests[0].headers


async def test_without_a_key_anthropic_itself_is_not_asked() -> None:
    model = configured()
    raised = await failure(model)
    assert raised.reason == FailureReason.FAILURE_REASON_MODEL_AUTHENTICATION
    assert "ANTHROPIC_API_KEY" in raised.message
    assert "ANTHROPIC_API_KEY" in model.lacks(None)


def test_what_a_call_costs_is_listed() -> None:
    usage = usage_of(1_000_000, 0)
    assert usage is not None
    price = cost(usage, "claude-sonnet-4-5", ANTHROPIC_URL)
    assert price is not None
    assert price.usd_micros > 0
