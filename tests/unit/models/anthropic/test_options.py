"""Which parameters of a message a run may choose at the provider `anthropic`."""

from __future__ import annotations

from typing import Any

import pytest

from polos_service.models.anthropic.options import RULES, check


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("max_tokens", 1),
        ("metadata", {"user_id": "u"}),
        ("output_config", {"effort": "low"}),
        ("service_tier", "standard_only"),
        ("stop_sequences", ["END"]),
        ("temperature", 0),
        ("temperature", 1.0),
        ("thinking", {"type": "enabled", "budget_tokens": 1024}),
        ("tool_choice", {"type": "any"}),
        ("top_k", 40),
        ("top_p", 0.5),
    ],
)
def test_what_a_run_may_choose(name: str, value: Any) -> None:
    assert check({name: value}) == {}


@pytest.mark.parametrize(
    ("name", "value", "what"),
    [
        ("max_tokens", 0, "must be an integer above 0"),
        ("metadata", "u", "must be an object"),
        ("stop_sequences", "END", "must be a list of strings that are not blank"),
        ("stop_sequences", [" "], "must be a list of strings that are not blank"),
        ("stop_sequences", [], "must be a list of strings that are not blank"),
        ("temperature", 1.5, "must be a number from 0 to 1"),
        ("temperature", True, "must be a number from 0 to 1"),
        ("thinking", {"budget_tokens": 9}, "must be an object with a type"),
        ("tool_choice", "auto", "must be an object with a type"),
        ("top_k", 1.5, "must be an integer above 0"),
    ],
)
def test_a_value_that_the_api_would_refuse_is_refused_by_name(
    name: str, value: Any, what: str
) -> None:
    assert check({name: value}) == {name: what}


@pytest.mark.parametrize(
    ("name", "near"),
    [("stop_sequence", "stop_sequences"), ("stop", "stop_sequences"), ("max_token", "max_tokens")],
)
def test_a_name_that_is_nearly_right_is_told(name: str, near: str) -> None:
    assert f"did you mean {near}?" in check({name: "x"})[name]


def test_another_name_is_refused_with_what_there_is() -> None:
    assert check({"messages": []}) == {
        "messages": f"cannot be set for a run; allowed: {', '.join(RULES)}"
    }
