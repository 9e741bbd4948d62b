"""Which addresses of providers an operator allows."""

from __future__ import annotations

import pytest

from polos_client.errors import DefinitionError
from polos_service.config import Settings, SettingsInvalidError
from polos_service.errors import StepError
from polos_service.models.address import Address
from polos_service.models.allowed import Allowed
from polos_service.models.built_in import BUILT_IN
from polos_service.models.configured import ProviderConfig
from polos_service.models.providers import Providers
from tests.support.models import ask


def permits(entry: str, base_url: str) -> bool:
    return Allowed([entry]).permits(Address.of(base_url).url)


@pytest.mark.parametrize(
    ("entry", "base_url"),
    [
        ("api.openai.com", "https://api.openai.com/v1"),
        ("API.openai.com", "https://Api.OpenAI.com:443/v1"),
        ("api.openai.com:443", "https://api.openai.com/v1"),
        ("localhost:11434", "http://localhost:11434/v1"),
        ("127.0.0.1", "http://127.0.0.1/v1"),
        ("[::1]:8000", "http://[::1]:8000"),
        ("*.openai.azure.com", "https://team.openai.azure.com/openai/v1"),
        ("https://gpu.example", "https://gpu.example/v1"),
        ("https://gpu.example/team/", "https://gpu.example/team/v1"),
        ("https://gpu.example/team", "https://gpu.example/team"),
        ("https://gpu.example:8443/", "https://gpu.example:8443/v1"),
        ("gpu.example", "https://user:password@gpu.example/v1"),
    ],
)
def test_address_is_allowed(entry: str, base_url: str) -> None:
    assert permits(entry, base_url)


@pytest.mark.parametrize(
    ("entry", "base_url"),
    [
        ("api.openai.com", "https://api.openai.com.evil.example/v1"),
        ("api.openai.com", "https://evil-api.openai.com/v1"),
        ("api.openai.com", "https://api.openai.com@evil.example/v1"),
        ("api.openai.com", "https://evil.example/api.openai.com"),
        ("api.openai.com", "https://evil.example/?https://api.openai.com"),
        ("api.openai.com", "https://api.openai.com:8443/v1"),
        ("api.openai.com", "https://sub.api.openai.com/v1"),
        ("api.openai.com:443", "http://api.openai.com/v1"),
        ("localhost:11434", "http://localhost:11435"),
        ("localhost", "http://127.0.0.1"),
        ("127.0.0.1", "http://127.1"),
        ("*.openai.azure.com", "https://openai.azure.com"),
        ("*.openai.azure.com", "https://evilopenai.azure.com"),
        ("https://gpu.example/team", "http://gpu.example/team"),
        ("https://gpu.example/team", "https://gpu.example/teams"),
        ("https://gpu.example/team", "https://gpu.example/"),
        ("https://gpu.example/team", "https://gpu.example/team/../other"),
        ("https://gpu.example/team", "https://gpu.example/team/%2e%2e/other"),
        ("https://gpu.example/team", "https://gpu.example/team/..%2fother"),
        ("https://gpu.example/team", "https://gpu.example/team/..\\other"),
    ],
)
def test_address_is_not_allowed(entry: str, base_url: str) -> None:
    assert not permits(entry, base_url)


def test_without_a_list_everything_is_allowed_and_with_an_empty_one_nothing() -> None:
    assert Allowed().permits("https://api.openai.com/v1")
    assert not Allowed([]).permits("https://api.openai.com/v1")


@pytest.mark.parametrize(
    "entry",
    [
        *("", " ", "*", "*.", "a b", "host/path", "ftp://host", "https://", "host:0", "host:99999"),
        *("https://user:secret@host", "secret@host", "https://host/?q", "a.*.b", "https://*"),
    ],
)
def test_entry_that_is_no_address_is_refused_without_repeating_it(entry: str) -> None:
    with pytest.raises(
        SettingsInvalidError, match=r"POLOS_PROVIDER_ALLOW.*item 2 is not"
    ) as caught:
        Allowed(["host", entry])
    assert "secret" not in str(caught.value)


async def test_agents_with_other_addresses_are_not_loaded_and_not_called() -> None:
    environment = {"OPENAI_API_KEY": "key", "GROQ_API_KEY": "key"}
    allowed = Allowed(["api.openai.com"])
    providers = Providers(BUILT_IN, ProviderConfig(environment=environment, allowed=allowed))
    providers.find("openai", None)
    providers.find("scripted", None)
    for name, base_url, host in (
        ("groq", None, "api.groq.com"),
        ("anthropic", None, "api.anthropic.com"),
        ("openai", "https://me:secret@gpu.example/v1", "gpu.example"),
    ):
        with pytest.raises(DefinitionError, match=f"address {host} is not among") as loaded:
            providers.find(name, None, base_url)
        with pytest.raises(StepError, match=f"The address {host} is not among") as called:
            await ask(providers[name], base_url=base_url)
        assert "secret" not in f"{loaded.value} {called.value}"
    await providers.close()


NOT_A_CALLERS = (
    *("api_base", "api_key", "base_url", "default_headers", "extra_body", "extra_headers"),
    *("extra_query", "headers", "messages", "model", "stream", "tools"),
)


@pytest.mark.parametrize("provider", sorted({*BUILT_IN} - {"scripted"}))
def test_callers_choose_no_address_key_or_header(provider: str) -> None:
    providers = Providers(BUILT_IN, ProviderConfig(environment={"AZURE_OPENAI_API_KEY": "k"}))
    for api in (None, *providers[provider].apis):
        refused = providers.check(provider, {name: {} for name in NOT_A_CALLERS}, api)
        assert set(refused) == set(NOT_A_CALLERS)


@pytest.mark.parametrize("name", NOT_A_CALLERS)
def test_operators_cannot_give_it_to_callers(name: str) -> None:
    with pytest.raises(ValueError, match="cannot be chosen by callers"):
        Settings(caller_options=["top_k", name])
