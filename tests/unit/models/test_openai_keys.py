"""The provider `openai`: which address gets which key."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from pydantic import SecretStr

from polos.v1.error_pb2 import FailureReason
from polos_service.config import SettingsInvalidError
from polos_service.errors import StepError
from polos_service.models import ModelRequest
from polos_service.models.configured import ProviderConfig
from polos_service.models.openai.presets import OPENAI, OPENAI_URL
from polos_service.models.remote import Remote
from tests.support.mock_answers import say, status
from tests.support.mock_provider import MockProvider
from tests.support.models import Heard, openai, provider_at

SECRET = "env-secret-1234567890"


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
async def open_model(**configuration: Any) -> AsyncIterator[Remote]:
    model = openai(**configuration)
    try:
        yield model
    finally:
        await model.close()


async def ask(model: Remote, base_url: str | None = None) -> None:
    await model.answer(ModelRequest(model="mock", messages=[], base_url=base_url), Heard())


async def test_the_key_goes_to_the_configured_address_only(
    provider: MockProvider, other: MockProvider
) -> None:
    provider.reply(say("x"))
    other.reply(say("x"))
    async with open_model(base_url=provider.url, api_key=SecretStr(SECRET)) as model:
        await ask(model)
        await ask(model, other.url)
    assert provider.requests[0].headers["authorization"] == f"Bearer {SECRET}"
    assert other.requests[0].headers.get("authorization") is None
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


async def test_the_configured_address_gets_the_organisation_and_no_other_address_does(
    provider: MockProvider, other: MockProvider
) -> None:
    told = {
        "OPENAI_ORG_ID": f"{SECRET}-org",
        "OPENAI_PROJECT_ID": f"{SECRET}-project",
        "OPENAI_CUSTOM_HEADERS": f"X-Own: {SECRET}-own\n\n X-More : {SECRET}: more \n",
    }
    model = provider_at("openai", provider.url, **told)
    for server in (provider, other):
        server.reply(say("x"))
        await ask(model, server.url)
    await model.close()
    headers = provider.requests[0].headers
    assert headers["openai-organization"] == f"{SECRET}-org"
    assert headers["openai-project"] == f"{SECRET}-project"
    assert (headers["x-own"], headers["x-more"]) == (f"{SECRET}-own", f"{SECRET}: more")
    assert headers.get("authorization") is None
    assert SECRET not in str(other.requests[0])


async def test_a_header_of_ones_own_goes_before_the_key(provider: MockProvider) -> None:
    provider.reply(say("x"))
    own = {"OPENAI_CUSTOM_HEADERS": "authorization: Token mine"}
    model = provider_at("openai", provider.url, "the-key", **own)
    await ask(model)
    await model.close()
    assert provider.requests[0].headers["authorization"] == "Token mine"


async def test_a_header_of_ones_own_is_not_told(provider: MockProvider) -> None:
    provider.reply(status(400, {"error": {"message": f"bad header {SECRET}"}}))
    own = {"OPENAI_CUSTOM_HEADERS": f"X-Gateway: {SECRET}"}
    model = provider_at("openai", provider.url, **own)
    with pytest.raises(StepError, match="bad header") as raised:
        await ask(model)
    await model.close()
    assert SECRET not in raised.value.message


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("OPENAI_CUSTOM_HEADERS", "no colon"),
        ("OPENAI_CUSTOM_HEADERS", "Host: example.com"),
        ("OPENAI_CUSTOM_HEADERS", "Content-Length: 5"),
        ("OPENAI_CUSTOM_HEADERS", "two words: x"),
        ("OPENAI_CUSTOM_HEADERS", ": x"),
        ("OPENAI_CUSTOM_HEADERS", "X-Own: schl\u00fcssel"),
        ("OPENAI_ORG_ID", "\u00fcber"),
        ("OPENAI_BASE_URL", "ftp://me:secret@host/v1"),
    ],
)
def test_a_variable_that_cannot_be_used_is_named_and_its_value_is_not(
    variable: str, value: str
) -> None:
    with pytest.raises(SettingsInvalidError, match=f"^{variable}: ") as raised:
        ProviderConfig(environment={variable: value}).account(OPENAI)
    assert value not in str(raised.value)


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
async def test_the_key_of_another_address_is_not_sent_to_openai(provider: MockProvider) -> None:
    async with open_model(base_url=provider.url, api_key=SecretStr(SECRET)) as model:
        with pytest.raises(StepError, match=r"no key for api\.openai\.com"):
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
async def test_what_is_not_an_address_is_refused(url: str) -> None:
    async with open_model() as model:
        with pytest.raises(StepError, match="not an http:// or https:// address") as raised:
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


@pytest.mark.parametrize("code", [401, 403])
async def test_a_refused_key_is_told_by_the_setting_that_it_stands_in(
    provider: MockProvider, other: MockProvider, code: int
) -> None:
    own, others = "OPENAI_API_KEY", "POLOS_PROVIDER_KEYS"
    keys = {other.url: SecretStr("theirs")}
    mapped = {provider.url: SecretStr("mapped"), **keys}
    for configuration, server, advice in (
        ({"api_key": SecretStr("ours"), "keys": mapped}, provider, f"Check {own}"),
        ({"keys": mapped}, provider, f"Check {others}"),
        ({"keys": mapped}, other, f"Check {others}"),
        ({}, provider, f"No key was sent: set {own}"),
        ({"api_key": SecretStr("ours")}, other, f"No key was sent: set {others}"),
    ):
        server.reply(status(code, {"error": {"message": "Who are you?"}}))
        async with open_model(base_url=provider.url, **configuration) as model:
            with pytest.raises(StepError) as raised:
                await ask(model, server.url)
        end = f"Who are you? {advice} in the environment of the service."
        assert raised.value.message.endswith(end)


async def test_a_base_url_without_a_path_is_suspected_if_nothing_is_found(
    provider: MockProvider,
) -> None:
    for url, suspected in ((provider.url.removesuffix("/v1"), True), (provider.url, False)):
        provider.reply(status(404, {"error": {"message": "Not found"}}))
        async with open_model(base_url=url) as model:
            with pytest.raises(StepError) as raised:
                await ask(model)
        assert ("it has no path, and most servers need one" in raised.value.message) == suspected
