"""The provider `openai`: what a run may choose."""

from __future__ import annotations

from typing import Any

import pytest

from polos_service.models import ModelRequest
from polos_service.models.address import Address
from polos_service.models.openai.chat_request import body
from polos_service.models.openai.presets import OPENAI_URL
from tests.support.models import openai


def test_openai_gets_the_bound_under_its_new_name() -> None:
    request = ModelRequest(model="gpt", messages=[], max_output_tokens=5)
    assert body(request, Address.of(OPENAI_URL), "openai")["max_completion_tokens"] == 5
    assert (
        body(request, Address.of("https://eu.api.openai.com/v1"), "openai")["max_completion_tokens"]
        == 5
    )
    other = Address.of("https://api.openai.com.example/v1")
    assert "max_completion_tokens" not in body(request, other, "openai")


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
