"""What a run may choose of the Responses API."""

from __future__ import annotations

from typing import Any

import pytest

from polos_service.models.openai.responses_options import ABSENT, BOUNDS, check


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"max_tokens": 5},
        {"max_output_tokens": 5, "temperature": 1, "top_p": 0.5, "parallel_tool_calls": True},
        {"reasoning_effort": "low", "verbosity": "high", "response_format": {"type": "text"}},
        {"reasoning": {"effort": "low", "summary": "auto"}, "truncation": "auto"},
        {"tool_choice": "none", "metadata": {}, "service_tier": "flex", "user": "u"},
    ],
)
def test_what_the_api_has_may_be_chosen(options: dict[str, Any]) -> None:
    assert check(options) == {}


@pytest.mark.parametrize("name", ABSENT)
def test_what_the_api_does_not_have_is_refused_by_name(name: str) -> None:
    (told,) = check({name: 1}).items()
    assert told[0] == name
    assert "is not a parameter of the Responses API" in told[1]


@pytest.mark.parametrize("name", ["store", "previous_response_id", "input", "include", "stream"])
def test_what_is_kept_at_the_provider_is_not_the_callers_choice(name: str) -> None:
    assert "cannot be set for a run" in check({name: True})[name]


def test_a_value_has_the_form_of_the_api() -> None:
    assert check({"max_output_tokens": 0, "reasoning": "low", "temperature": 3}) == {
        "max_output_tokens": "must be an integer above 0",
        "reasoning": "must be an object",
        "temperature": "must be a number from 0 to 2",
    }


def test_the_bound_has_one_name_at_a_time() -> None:
    wrong = check(dict.fromkeys(BOUNDS, 5))
    assert set(wrong) == {"max_completion_tokens", "max_tokens"}
    assert "set only one" in wrong["max_tokens"]
