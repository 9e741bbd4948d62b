"""The providers by name: those that are built in, and those of installed packages."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from polos_client.errors import DefinitionError
from polos_service.models.built_in import BUILT_IN
from polos_service.models.configured import ProviderConfig
from polos_service.models.providers import Providers
from polos_service.models.remote import Remote
from polos_service.models.scripted import Scripted
from tests.support.models import ask
from tests.support.plugin import install


@pytest.fixture
def _plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(install(tmp_path))
    monkeypatch.delitem(sys.modules, "acme_models", raising=False)


def providers(caller_options: tuple[str, ...] = (), **environment: str) -> Providers:
    return Providers(BUILT_IN, ProviderConfig(environment=environment), caller_options)


def refusal(provider: str, api: str | None = None) -> str:
    with pytest.raises(DefinitionError) as raised:
        providers().find(provider, api)
    return str(raised.value)


def test_an_unknown_provider_is_refused_with_those_that_there_are() -> None:
    said = refusal("clever")
    assert said.startswith("there is no provider 'clever'; there are anthropic, azure, ")
    assert all(name in said for name in BUILT_IN)


@pytest.mark.parametrize(
    ("name", "near"),
    [("opnai", "openai"), ("OpenAI", "openai"), ("mistrall", "mistral"), ("olama", "ollama")],
)
def test_a_near_miss_is_named(name: str, near: str) -> None:
    assert refusal(name).startswith(f"there is no provider '{name}' (did you mean '{near}'?); ")


def test_an_api_that_a_provider_does_not_have_is_refused_with_those_that_it_has() -> None:
    assert refusal("groq", "chat_completion") == (
        "the provider 'groq' has no provider_llm_api 'chat_completion' (did you mean "
        "'chat_completions'?); it has chat_completions"
    )
    assert refusal("scripted", "chat_completions") == (
        "the provider 'scripted' has no provider_llm_api 'chat_completions'; leave it out"
    )


def test_a_provider_is_made_once() -> None:
    one = providers()
    assert one.find("openai", "chat_completions") is one["openai"]


@pytest.mark.usefixtures("_plugin")
def test_installed_providers_are_named_with_the_others() -> None:
    assert "echo" in refusal("clever")
    assert "(did you mean 'echo'?)" in refusal("eccho")


@pytest.mark.usefixtures("_plugin")
async def test_a_package_adds_a_model_of_its_own() -> None:
    one = providers(ECHO_SIGN="!")
    model = one.find("echo", "loud")
    answer, heard = await ask(model, api="loud")
    await one.close()
    assert (answer.text, heard) == ("HI!", ["HI!"])
    assert one.check("echo", {"x": 1}, "quiet") == {"x": "cannot be set for quiet"}
    assert (model.lacks(None), providers()["echo"].lacks(None)) == ("", "ECHO_SIGN is not set")


async def test_a_provider_that_cannot_be_closed_keeps_no_other_from_it() -> None:
    closed = []

    class Closing(Scripted):
        async def close(self) -> None:
            closed.append(self)
            raise RuntimeError

    one = Providers({"a": lambda _: Closing(), "b": lambda _: Closing()})
    made = [one["a"], one["b"]]
    await one.close()
    assert closed == made


@pytest.mark.usefixtures("_plugin")
def test_a_package_adds_a_provider_of_a_known_api_with_a_row() -> None:
    assert providers()["acme"].lacks(None) == "ACME_API_KEY is not set"
    assert providers(ACME_API_KEY="k")["acme"].lacks(None) == ""


@pytest.mark.usefixtures("_plugin")
def test_a_package_cannot_take_the_name_of_a_built_in_provider() -> None:
    assert isinstance(providers()["openai"], Remote)


@pytest.mark.usefixtures("_plugin")
@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("expired", "cannot be loaded: RuntimeError: the licence has expired"),
        ("misspelt", "cannot be loaded: AttributeError: module 'acme_models' has no attribute"),
        ("absent", "cannot be loaded: ModuleNotFoundError: No module named 'acme_nowhere'"),
        ("nothing", "cannot be used: its acme_models:nothing made 'no model', which has no answer"),
    ],
)
def test_a_broken_provider_says_which_package_is_broken_and_how(name: str, why: str) -> None:
    assert refusal(name).startswith(f"the provider '{name}' of the package acme-models {why}")
    assert providers()["echo"].apis == ("loud", "quiet")


def test_two_packages_with_one_provider_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("one-models", "two-models"):
        install(tmp_path, name, echo="acme_models:echo")
    monkeypatch.syspath_prepend(tmp_path)
    said = refusal("echo")
    assert said.startswith("several packages have a provider 'echo': ")
    assert all(name in said for name in ("one-models", "two-models"))


@pytest.mark.parametrize(
    ("options", "wrong"),
    [
        ({"top_k": 4, "seed": 7}, set()),
        ({"top_k": "whatever it is"}, set()),
        ({"top_p": 5, "top_k": 4}, {"top_p"}),
        ({"min_p": 0.1}, {"min_p"}),
    ],
)
def test_a_caller_may_choose_what_the_operator_allows(
    options: dict[str, Any], wrong: set[str]
) -> None:
    assert providers(("top_k",)).check("openai", options, None).keys() == wrong
