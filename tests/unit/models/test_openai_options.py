"""The provider `openai`: what a run may choose."""

from __future__ import annotations

from typing import Any

import pytest

from polos_service.models import ModelRequest
from polos_service.models.address import Address
from polos_service.models.openai.presets import OPENAI_URL, PRESETS
from tests.support.models import openai

BOUNDS = {"max_tokens", "max_completion_tokens"}


@pytest.mark.parametrize(
    ("provider", "base_url", "bound"),
    [
        ("openai", OPENAI_URL, "max_completion_tokens"),
        ("openai", "https://eu.api.openai.com/v1", "max_completion_tokens"),
        ("openai", "https://api.openai.com.example/v1", "max_tokens"),
        ("azure", "https://mine.openai.azure.com/openai/v1", "max_completion_tokens"),
        ("mistral", "https://api.mistral.ai/v1", "max_tokens"),
        ("mistral", OPENAI_URL, "max_tokens"),
    ],
)
def test_the_bound_has_the_name_that_the_provider_knows(
    provider: str, base_url: str, bound: str
) -> None:
    request = ModelRequest(model="gpt", messages=[], max_output_tokens=5)
    made = body(request, base_url, provider)
    assert {name: made[name] for name in BOUNDS & made.keys()} == {bound: 5}


@pytest.mark.parametrize("chosen", sorted(BOUNDS))
@pytest.mark.parametrize("where", ["settings", "options"])
def test_a_bound_that_is_chosen_replaces_the_agents(where: str, chosen: str) -> None:
    more: dict[str, Any] = {where: {chosen: 9}}
    request = ModelRequest(model="gpt", messages=[], max_output_tokens=5, **more)
    made = body(request)
    assert {name: made[name] for name in BOUNDS & made.keys()} == {chosen: 9}


def test_a_run_goes_before_its_agent_and_both_before_the_definition() -> None:
    request = ModelRequest(
        model="gpt",
        messages=[],
        temperature=0.1,
        settings={"temperature": 0.2, "top_k": 4, "stream_options": {"a": 1}},
        options={"temperature": 0.3},
    )
    made = body(request)
    assert (made["temperature"], made["top_k"]) == (0.3, 4)
    assert made["stream_options"] == {"a": 1}


def body(
    request: ModelRequest, base_url: str = OPENAI_URL, provider: str = "openai"
) -> dict[str, Any]:
    api = PRESETS[provider].apis["chat_completions"]
    return api.body(request, Address.of(base_url), provider)


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
    assert openai().check(options) == {}


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
def test_all_else_is_refused_by_its_name(name: str, value: Any) -> None:
    wrong = openai().check({name: value})
    assert list(wrong) == [name]
    assert wrong[name].startswith(("must be ", "cannot be set for a run"))


def test_two_names_of_one_bound_are_refused() -> None:
    assert openai().check({"max_tokens": 1, "max_completion_tokens": 1}).keys() == {"max_tokens"}
