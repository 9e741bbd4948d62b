"""The provider `openai`: which address gets which key, and what a run may choose."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from pydantic import SecretStr

from polos.v1.error_pb2 import FailureReason
from polos_service.errors import StepError
from polos_service.models import ModelRequest
from polos_service.models.openai import OPENAI_URL, OpenAI, _body
from tests.mock_provider import MockProvider, say, status

SECRET = "env-secret-1234567890"


@pytest.fixture
async def provider() -> AsyncIterator[MockProvider]:
    async with MockProvider() as provider:
        yield provider


@pytest.fixture
async def other() -> AsyncIterator[MockProvider]:
    async with MockProvider() as provider:
        yield provider


@pytest.fixture
def _environment(monkeypatch: pytest.MonkeyPatch, other: MockProvider) -> None:
    """Set all that the `openai` package reads by itself."""
    for name in ("API_KEY", "ADMIN_KEY", "ORG_ID", "PROJECT_ID", "WEBHOOK_SECRET"):
        monkeypatch.setenv(f"OPENAI_{name}", f"{SECRET}-{name}")
    monkeypatch.setenv("OPENAI_CUSTOM_HEADERS", f"X-Own: {SECRET}")
    monkeypatch.setenv("OPENAI_BASE_URL", other.url)


@asynccontextmanager
async def open_model(**configuration: Any) -> AsyncIterator[OpenAI]:
    model = OpenAI(**configuration)
    try:
        yield model
    finally:
        await model.close()


async def ignore(text: str) -> None:
    pass


async def ask(model: OpenAI, base_url: str | None = None) -> None:
    await model.answer(ModelRequest(model="mock", messages=[], base_url=base_url), ignore)


async def test_the_key_goes_to_the_configured_address_only(
    provider: MockProvider, other: MockProvider
) -> None:
    provider.reply(say("x"))
    other.reply(say("x"))
    async with open_model(base_url=provider.url, api_key=SecretStr(SECRET)) as model:
        await ask(model)
        await ask(model, other.url)
    assert provider.requests[0].headers["authorization"] == f"Bearer {SECRET}"
    assert other.requests[0].headers["authorization"] == "Bearer none"
    assert SECRET not in str(other.requests[0])


async def test_an_address_gets_the_key_that_is_mapped_to_it(
    provider: MockProvider, other: MockProvider
) -> None:
    provider.reply(say("x"))
    other.reply(say("x"))
    keys = {other.url + "/": SecretStr("theirs\n")}
    async with open_model(base_url=provider.url, api_key=SecretStr("ours"), keys=keys) as model:
        await ask(model, other.url)
        await ask(model, provider.url + "/")
    assert other.requests[0].headers["authorization"] == "Bearer theirs"
    assert provider.requests[0].headers["authorization"] == "Bearer ours"


@pytest.mark.usefixtures("_environment")
async def test_nothing_of_the_environment_reaches_another_address(
    provider: MockProvider, other: MockProvider
) -> None:
    other.reply(say("x"))
    async with open_model(base_url=provider.url) as model:
        await ask(model, other.url)
    assert SECRET not in str(other.requests[0])


@pytest.mark.usefixtures("_environment")
async def test_the_configured_address_gets_the_organisation_but_no_key_from_the_environment(
    provider: MockProvider, other: MockProvider
) -> None:
    provider.reply(say("x"))
    async with open_model(base_url=provider.url) as model:
        await ask(model)
    headers = provider.requests[0].headers
    assert headers["authorization"] == "Bearer none"
    assert headers["openai-organization"] == f"{SECRET}-ORG_ID"
    assert other.requests == []


async def test_a_redirect_is_not_followed(provider: MockProvider, other: MockProvider) -> None:
    provider.reply(status(307, location=other.url + "/chat/completions"))
    async with open_model(base_url=provider.url, api_key=SecretStr(SECRET)) as model:
        with pytest.raises(StepError, match="HTTP 307"):
            await ask(model)
    assert other.requests == []


async def test_without_a_key_openai_is_not_asked() -> None:
    async with open_model() as model:
        with pytest.raises(StepError, match="set OPENAI_API_KEY") as raised:
            await ask(model)
    assert raised.value.reason == FailureReason.FAILURE_REASON_MODEL_AUTHENTICATION
    assert "api.openai.com" in raised.value.message


@pytest.mark.usefixtures("_environment")
async def test_an_agent_cannot_take_the_key_to_openai_from_elsewhere(
    provider: MockProvider,
) -> None:
    async with open_model(base_url=provider.url, api_key=SecretStr(SECRET)) as model:
        with pytest.raises(StepError, match="no key for api.openai.com"):
            await ask(model, OPENAI_URL)


@pytest.mark.parametrize("key", ["schlüssel-1234", "two\nlines"])
async def test_a_key_that_no_header_can_carry_is_refused_without_telling_it(
    provider: MockProvider, key: str
) -> None:
    async with open_model(base_url=provider.url, api_key=SecretStr(key)) as model:
        with pytest.raises(StepError) as raised:
            await ask(model)
    assert raised.value.reason == FailureReason.FAILURE_REASON_MODEL_AUTHENTICATION
    assert key not in str(vars(raised.value))
    assert provider.requests == []


@pytest.mark.parametrize(
    "url", ["localhost:8080", "ftp://host/v1", "http://", "http://[::1", "/v1"]
)
async def test_what_is_no_address_is_refused(url: str) -> None:
    async with open_model() as model:
        with pytest.raises(StepError, match="no http:// or https:// address") as raised:
            await ask(model, url)
    assert raised.value.reason == FailureReason.FAILURE_REASON_MODEL_BAD_REQUEST


async def test_a_closed_provider_opens_again_when_it_is_asked(provider: MockProvider) -> None:
    provider.reply(say("x"))
    provider.reply(say("x"))
    async with open_model(base_url=provider.url) as model:
        await ask(model)
        await model.close()
        await ask(model)
    assert provider.connections == 2


def test_openai_gets_the_bound_under_its_new_name() -> None:
    request = ModelRequest(model="gpt", messages=[], max_output_tokens=5)
    assert _body(request, OPENAI_URL)["max_completion_tokens"] == 5
    assert _body(request, "https://eu.api.openai.com/v1")["max_completion_tokens"] == 5
    assert "max_completion_tokens" not in _body(request, "https://api.openai.com.example/v1")


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"temperature": 0, "top_p": 1.0, "seed": 0, "presence_penalty": -2},
        {"frequency_penalty": 2, "logit_bias": {"5": 1}, "max_tokens": 1, "stop": "END"},
        {"max_completion_tokens": 1, "stop": ["a", "b"], "parallel_tool_calls": False},
        {"reasoning_effort": "low", "verbosity": "low", "tool_choice": "required"},
        {"tool_choice": {"type": "function"}, "response_format": {"type": "json_object"}},
        {"service_tier": "flex", "user": "u", "metadata": {"a": "b"}},
    ],
)
def test_sampling_parameters_are_a_runs_to_choose(options: dict[str, Any]) -> None:
    assert OpenAI().check(options) == {}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("temperature", 2.1),
        ("temperature", True),
        ("temperature", float("nan")),
        ("temperature", "1"),
        ("top_p", -0.1),
        ("seed", 1.5),
        ("max_tokens", 0),
        ("max_completion_tokens", True),
        ("stop", ""),
        ("stop", []),
        ("stop", ["a"] * 5),
        ("stop", [1]),
        ("parallel_tool_calls", "yes"),
        ("tool_choice", 5),
        ("response_format", "json"),
        ("logit_bias", []),
        ("metadata", "x"),
        ("user", None),
        ("n", 2),
        ("model", "gpt"),
        ("messages", []),
        ("stream", False),
        ("stream_options", {}),
        ("tools", []),
        ("api_key", "x"),
        ("base_url", "http://example.com"),
        ("extra_body", {}),
        ("extra_headers", {}),
        ("extra_query", {}),
        ("timeout", 1),
    ],
)
def test_all_else_is_refused_with_a_sentence(name: str, value: Any) -> None:
    assert list(OpenAI().check({name: value})) == [name]


def test_two_names_of_one_bound_are_refused() -> None:
    assert OpenAI().check({"max_tokens": 1, "max_completion_tokens": 1}).keys() == {"max_tokens"}
