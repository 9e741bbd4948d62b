"""Rules for the parameters of a model call that a run may choose."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from difflib import get_close_matches
from typing import Any, NamedTuple


class Rule(NamedTuple):
    """What a parameter looks like.

    Attributes:
        holds: whether a value does.
        what: what is said if it does not.

    """

    holds: Callable[[Any], bool]
    what: str


def number(low: float, high: float) -> Rule:
    """Return the rule of a parameter that is a number between two others."""

    def holds(value: Any) -> bool:
        return type(value) in (int, float) and low <= value <= high

    return Rule(holds, f"must be a number from {low:g} to {high:g}")


def _is_count(value: Any) -> bool:
    return type(value) is int and value > 0


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and bool(value)


COUNT = Rule(_is_count, "must be an integer above 0")
"""A parameter that counts something."""

TEXT = Rule(_is_text, "must be a non-empty string")
"""A parameter that is a word."""

OBJECT = Rule(lambda value: isinstance(value, dict), "must be an object")
"""A parameter with parameters of its own."""


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
