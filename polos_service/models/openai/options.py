"""Which parameters of a chat completion a run may choose, and what they look like."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from polos_service.models.options import COUNT, OBJECT, TEXT, Rule, broken, number

MAX_STOPS = 4
"""Stop sequences that the API takes."""


def _is_stop(value: Any) -> bool:
    stops = [value] if isinstance(value, str) else value
    return (
        isinstance(stops, list)
        and 1 <= len(stops) <= MAX_STOPS
        and all(isinstance(stop, str) and stop for stop in stops)
    )


RULES: Mapping[str, Rule] = {
    "frequency_penalty": number(-2, 2),
    "logit_bias": OBJECT,
    "max_completion_tokens": COUNT,
    "max_tokens": COUNT,
    "metadata": OBJECT,
    "parallel_tool_calls": Rule(lambda value: isinstance(value, bool), "must be true or false"),
    "presence_penalty": number(-2, 2),
    "reasoning_effort": TEXT,
    "response_format": OBJECT,
    "seed": Rule(lambda value: type(value) is int, "must be an integer"),
    "service_tier": TEXT,
    "stop": Rule(_is_stop, f"must be a string or a list of 1 to {MAX_STOPS} non-empty strings"),
    "temperature": number(0, 2),
    "tool_choice": Rule(
        lambda value: isinstance(value, str | dict), "must be a string or an object"
    ),
    "top_p": number(0, 1),
    "user": TEXT,
    "verbosity": TEXT,
}
"""What may be chosen. All else stays with the service: address, key, headers, messages."""


def check(options: Mapping[str, Any]) -> Mapping[str, str]:
    """Return what is wrong with `options`, by name; empty if nothing is."""
    wrong = broken(options, RULES)
    if "max_tokens" in options and "max_completion_tokens" in options:
        wrong["max_tokens"] = "means the same as max_completion_tokens: set only one of them"
    return wrong
