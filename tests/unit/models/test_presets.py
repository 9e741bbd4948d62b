"""The table of providers: each is asked at its address, in its way, with its key."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import SecretStr

from polos.v1.error_pb2 import FailureReason
from polos_service.models import ModelRequest
from polos_service.models.address import Address
from polos_service.models.built_in import BUILT_IN, CHAT
from polos_service.models.configured import ProviderConfig
from polos_service.models.messages import Call, Message, Reasoning, Result, Text
from polos_service.models.openai.presets import PRESETS
from polos_service.models.remote import Remote
from tests.support.mock_answers import finish, say, status, tokens
from tests.support.mock_provider import MockProvider
from tests.support.models import HI, KEY, ask, failure, provider_at

DEFAULTS = {
    "azure": None,
    "deepseek": "https://api.deepseek.com",
    "fireworks": "https://api.fireworks.ai/inference/v1",
    "gemini": "https://generativelanguage.googleapis.com/v1beta/openai",
    "groq": "https://api.groq.com/openai/v1",
    "litellm": "http://localhost:4000/v1",
    "mistral": "https://api.mistral.ai/v1",
    "ollama": "http://localhost:11434/v1",
    "openai": "https://api.openai.com/v1",
    "openrouter": "https://openrouter.ai/api/v1",
    "together": "https://api.together.xyz/v1",
    "vllm": "http://localhost:8000/v1",
}
"""As each provider documents it."""

LOCAL = {"litellm", "ollama", "vllm"}

THOUGHT = [
    HI,
    Message(
        role="assistant",
        parts=(Reasoning(text="Hm."), Call(id="c1", name="add", arguments_json="{}")),
    ),
    Message(role="tool", parts=(Result(call_id="c1", content=(Text(text="3"),)),)),
]
"""A conversation in which the model thought, and called a tool without a word."""


def root(provider: MockProvider) -> str:
    """Return the mock's address without a path."""
    return provider.url.removesuffix("/v1")


def test_the_table_has_each_provider_at_its_documented_address() -> None:
    assert {name: one.base_url for name, one in PRESETS.items()} == DEFAULTS
    assert {name for name, one in PRESETS.items() if not one.needs_key} == LOCAL
    assert set(CHAT) == set(PRESETS) == {*DEFAULTS}
    assert {*CHAT, "scripted"} <= {*BUILT_IN}


def test_no_two_providers_share_a_variable() -> None:
    variables = [one.key_variable for one in PRESETS.values()]
    variables += [one.url_variable for one in PRESETS.values()]
    assert None not in variables
    assert len({*variables}) == 2 * len(PRESETS)


@pytest.mark.parametrize("name", PRESETS)
async def test_each_provider_is_asked_at_its_configured_address_with_its_key(
    provider: MockProvider, name: str
) -> None:
    provider.reply(say("Hello"), finish(usage=tokens(5, 2)))
    model = provider_at(name, provider.url, KEY)
    answer, heard = await ask(model)
    await model.close()
    assert (answer.text, heard) == ("Hello", ["Hello"])
    assert answer.usage is not None
    assert answer.usage.total_tokens == 7
    (request,) = provider.requests
    assert request.path == "/v1/chat/completions"
    keys = {"authorization": f"Bearer {KEY}", "api-key": None}
    if name == "azure":
        keys = {"authorization": None, "api-key": KEY}
    assert {header: request.headers.get(header) for header in keys} == keys


@pytest.mark.parametrize("name", PRESETS)
async def test_a_base_url_without_a_path_gets_that_of_the_provider(
    provider: MockProvider, name: str
) -> None:
    for _ in range(3):
        provider.reply(say("x"))
    model = provider_at(name, f"{root(provider)}/", KEY)
    await ask(model)
    await ask(model, base_url=root(provider))
    await ask(model, base_url=f"{root(provider)}/own/")
    await model.close()
    path = PRESETS[name].base_path
    assert [one.path for one in provider.requests] == [
        f"{path}/chat/completions",
        f"{path}/chat/completions",
        "/own/chat/completions",
    ]
    header = "api-key" if name == "azure" else "authorization"
    assert [header in one.headers for one in provider.requests] == [True, True, False]


@pytest.mark.parametrize("name", PRESETS)
async def test_the_path_of_an_api_at_the_end_of_a_base_url_is_left_out(
    provider: MockProvider, name: str
) -> None:
    provider.reply(say("x"))
    model = provider_at(name, f"{root(provider)}/own/chat/completions/", KEY)
    await ask(model)
    await model.close()
    assert provider.requests[0].path == "/own/chat/completions"


async def test_a_key_by_base_url_is_found_with_and_without_the_path(
    provider: MockProvider,
) -> None:
    provider.reply(say("x"))
    preset = PRESETS["ollama"]
    config = ProviderConfig(keys={root(provider): SecretStr(KEY)})
    model = Remote(preset, config.account(preset))
    await ask(model, base_url=provider.url)
    await model.close()
    assert provider.requests[0].headers["authorization"] == f"Bearer {KEY}"


@pytest.mark.parametrize(
    ("name", "member", "content"),
    [
        ("azure", None, None),
        ("deepseek", "reasoning_content", ""),
        ("fireworks", "reasoning_content", ""),
        ("gemini", None, ""),
        ("groq", None, ""),
        ("litellm", "reasoning_content", None),
        ("mistral", None, ""),
        ("ollama", "reasoning", ""),
        ("openai", "reasoning_content", ""),  # a server that is not OpenAI's
        ("openrouter", "reasoning", ""),
        ("together", "reasoning_content", ""),
        ("vllm", "reasoning_content", ""),
    ],
)
async def test_each_provider_gets_what_it_takes_and_nothing_else(
    provider: MockProvider, name: str, member: str | None, content: str | None
) -> None:
    provider.reply(say("x"))
    model = provider_at(name, provider.url, KEY)
    await ask(model, messages=THOUGHT)
    await model.close()
    body: dict[str, Any] = provider.requests[0].body
    said = body["messages"][1]
    assert {one for one in said if one.startswith("reasoning")} == ({member} if member else set())
    assert said["content"] == content
    assert ("stream_options" in body) == (name != "mistral")


async def test_a_model_that_does_not_reason_is_asked_without_the_reasoning_of_another(
    provider: MockProvider,
) -> None:
    refusal = "messages[1].reasoning: reasoning is not supported with this model"
    provider.reply(status(400, {"error": {"message": refusal}}))
    provider.reply(say("x"))
    model = provider_at("openrouter", provider.url, KEY)
    await ask(model, messages=THOUGHT)
    await model.close()
    assert ["reasoning" in one.body["messages"][1] for one in provider.requests] == [True, False]


def test_openai_gets_no_reasoning_back() -> None:
    api = PRESETS["openai"].apis["chat_completions"]
    request = ModelRequest(model="gpt", messages=THOUGHT)
    body = api.body(request, Address.of("https://api.openai.com/v1"), "openai")
    assert body["messages"][1].keys() == {"role", "content", "tool_calls"}


@pytest.mark.parametrize("name", sorted({*PRESETS} - LOCAL - {"azure"}))
async def test_a_provider_that_needs_a_key_names_its_variable(name: str) -> None:
    preset = PRESETS[name]
    model = Remote(preset, ProviderConfig().account(preset))
    assert model.lacks(None) == f"{preset.key_variable} is not set"
    failed = await failure(model)
    assert failed.reason == FailureReason.FAILURE_REASON_MODEL_AUTHENTICATION
    there = f"set {preset.key_variable} in the environment of the service"
    assert f"{there}, or {preset.url_variable} for another server." in failed.message
    assert not failed.retryable


@pytest.mark.parametrize("name", sorted(LOCAL))
def test_a_local_server_needs_no_key(name: str) -> None:
    preset = PRESETS[name]
    assert Remote(preset, ProviderConfig().account(preset)).lacks(None) == ""


async def test_azure_says_that_its_address_is_missing() -> None:
    model = Remote(PRESETS["azure"], ProviderConfig().account(PRESETS["azure"]))
    assert model.lacks(None) == "AZURE_OPENAI_ENDPOINT is not set"
    failed = await failure(model)
    assert failed.reason == FailureReason.FAILURE_REASON_MODEL_BAD_REQUEST
    assert "set the agent's provider_base_url, or AZURE_OPENAI_ENDPOINT" in failed.message


@pytest.mark.parametrize(
    ("name", "url", "key", "base_url", "lacks"),
    [
        ("azure", "https://a.openai.azure.com", "", None, "AZURE_OPENAI_API_KEY is not set"),
        ("azure", "https://a.openai.azure.com", "k", None, ""),
        (
            *("azure", "https://a.openai.azure.com", "k", "https://b.openai.azure.com"),
            "POLOS_PROVIDER_KEYS has no key for b.openai.azure.com",
        ),
        ("azure", "https://gateway.example", "", None, ""),
        ("openai", "", "", "https://eu.api.openai.com/v1", "POLOS_PROVIDER_KEYS has no key for "),
        ("openai", "", "", "https://me:pw@api.openai.com/v1", ""),
        ("openai", "", "", "http://localhost:8080/v1", ""),
        ("openai", "http://localhost:8080/v1", "", None, ""),
        ("openai", "", "", "localhost:8080", "its base URL is not an http:// or https:// address"),
        ("groq", "https://api.groq.com", "", None, "GROQ_API_KEY is not set"),
        ("groq", "https://gateway.example/groq", "", None, ""),
        *(
            ("groq", "", key, None, f"the key for api.groq.com in GROQ_API_KEY {flaw}")
            for key, flaw in (
                ("schl\u00fcssel", "is not plain text on one line"),
                ("gsk-1234567890\ngsk-2", "is not plain text on one line"),
                ('"gsk-1234567890"', "begins with a quotation mark"),
                ("'gsk-1234567890'", "begins with a quotation mark"),
                ("Bearer gsk-1234567890", "begins with the word Bearer"),
            )
        ),
    ],
)
def test_what_an_agent_lacks_is_known_before_it_calls(
    name: str, url: str, key: str, base_url: str | None, lacks: str
) -> None:
    told = provider_at(name, url, key).lacks(base_url)
    assert told.startswith(lacks)
    assert bool(told) == bool(lacks)
    assert "pw" not in told


async def test_headers_and_body_of_an_agents_own_are_sent(provider: MockProvider) -> None:
    provider.reply(say("x"))
    model = provider_at("vllm", provider.url, KEY)
    settings = {
        "top_k": 4,
        "extra_body": {"chat_template_kwargs": {"enable_thinking": False}},
        "extra_headers": {"X-Trace": "abc"},
    }
    await ask(model, settings=settings)
    await model.close()
    (request,) = provider.requests
    assert request.headers["x-trace"] == "abc"
    assert request.headers["authorization"] == f"Bearer {KEY}"
    assert request.body["top_k"] == 4
    assert request.body["chat_template_kwargs"] == {"enable_thinking": False}
    assert not {"extra_body", "extra_headers"} & request.body.keys()


async def test_a_header_of_an_agents_own_is_not_told(provider: MockProvider) -> None:
    provider.reply(status(400, {"error": {"message": f"bad token {KEY}"}}))
    model = provider_at("vllm", provider.url)
    request = ModelRequest(
        model="mock", messages=[HI], settings={"extra_headers": {"X-Gateway": KEY}}
    )
    failed = await failure(model, request=request)
    await model.close()
    assert "bad token" in failed.message


async def test_an_api_that_the_provider_does_not_have_is_named(provider: MockProvider) -> None:
    model = provider_at("groq", provider.url)
    request = ModelRequest(model="mock", messages=[HI], api="responses")
    failed = await failure(model, request=request)
    assert failed.reason == FailureReason.FAILURE_REASON_MODEL_BAD_REQUEST
    assert "groq has no API 'responses'; it has chat_completions" in failed.message


@pytest.mark.parametrize("name", ["azure", "openai"])
async def test_the_responses_api_is_asked_with_the_same_key_and_has_options_of_its_own(
    provider: MockProvider, name: str
) -> None:
    provider.reply(status(400, {"error": {"message": "seen"}}))
    model = provider_at(name, provider.url, KEY)
    request = ModelRequest(model="mock", messages=[HI], api="responses")
    assert "seen" in (await failure(model, request=request)).message
    await model.close()
    (received,) = provider.requests
    assert received.path == "/v1/responses"
    header, key = ("api-key", KEY) if name == "azure" else ("authorization", f"Bearer {KEY}")
    assert received.headers[header] == key
    assert model.check({"seed": 1}) == {}
    assert model.check({"seed": 1}, "responses").keys() == {"seed"}
    assert model.check({"reasoning": {}}, "responses") == {}
