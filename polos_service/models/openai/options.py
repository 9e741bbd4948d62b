"""Which parameters of a chat completion a run may choose, and what they look like."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from difflib import get_close_matches
from typing import Any, NamedTuple

MAX_STOPS = 4
"""Stop sequences that the API takes."""


class Rule(NamedTuple):
    """What a parameter looks like.

    Attributes:
        holds: whether a value does.
        what: what is said if it does not.

    """

    holds: Callable[[Any], bool]
    what: str


def _number(low: float, high: float) -> Rule:
    def holds(value: Any) -> bool:
        return type(value) in (int, float) and low <= value <= high

    return Rule(holds, f"must be a number from {low:g} to {high:g}")


def _is_count(value: Any) -> bool:
    return type(value) is int and value > 0


def _is_stop(value: Any) -> bool:
    stops = [value] if isinstance(value, str) else value
    return (
        isinstance(stops, list)
        and 1 <= len(stops) <= MAX_STOPS
        and all(isinstance(stop, str) and stop for stop in stops)
    )


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and bool(value)


COUNT = Rule(_is_count, "must be an integer above 0")
"""A parameter that counts something."""

TEXT = Rule(_is_text, "must be a non-empty string")
"""A parameter that is a word."""

OBJECT = Rule(lambda value: isinstance(value, dict), "must be an object")
"""A parameter with parameters of its own."""

RULES: Mapping[str, Rule] = {
    "frequency_penalty": _number(-2, 2),
    "logit_bias": OBJECT,
    "max_completion_tokens": COUNT,
    "max_tokens": COUNT,
    "metadata": OBJECT,
    "parallel_tool_calls": Rule(lambda value: isinstance(value, bool), "must be true or false"),
    "presence_penalty": _number(-2, 2),
    "reasoning_effort": TEXT,
    "response_format": OBJECT,
    "seed": Rule(lambda value: type(value) is int, "must be an integer"),
    "service_tier": TEXT,
    "stop": Rule(_is_stop, f"must be a string or a list of 1 to {MAX_STOPS} non-empty strings"),
    "temperature": _number(0, 2),
    "tool_choice": Rule(
        lambda value: isinstance(value, str | dict), "must be a string or an object"
    ),
    "top_p": _number(0, 1),
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


def broken(options: Mapping[str, Any], rules: Mapping[str, Rule]) -> dict[str, str]:
    """Return which rules are broken, by name of the parameter."""
    wrong = {}
    for name, value in options.items():
        if name not in rules:
            meant = "".join(f"did you mean {near}? " for near in get_close_matches(name, rules, 1))
            wrong[name] = f"cannot be set for a run; {meant}allowed: {', '.join(rules)}"
        elif not rules[name].holds(value):
            wrong[name] = rules[name].what
    return wrong
