"""What the options of a model call look like, and what is said of one that does not."""

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


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and bool(value)


def _is_count(value: Any) -> bool:
    return type(value) is int and value > 0


COUNT = Rule(_is_count, "must be an integer above 0")
"""A parameter that counts something."""

TEXT = Rule(_is_text, "must be a non-empty string")
"""A parameter that is a word."""

OBJECT = Rule(lambda value: isinstance(value, dict), "must be an object")
"""A parameter with parameters of its own."""


def number(low: float, high: float) -> Rule:
    """Return the rule of a number from `low` to `high`."""

    def holds(value: Any) -> bool:
        return type(value) in (int, float) and low <= value <= high

    return Rule(holds, f"must be a number from {low:g} to {high:g}")


def broken(options: Mapping[str, Any], rules: Mapping[str, Rule]) -> dict[str, str]:
    """Return which rules are broken, by name of the parameter."""
    wrong = {}
    for name, value in options.items():
        if name not in rules:
            wrong[name] = f"cannot be set for a run; {_meant(name, rules)}allowed: "
            wrong[name] += ", ".join(rules)
        elif not rules[name].holds(value):
            wrong[name] = rules[name].what
    return wrong


def _meant(name: str, rules: Mapping[str, Rule]) -> str:
    """Return a question with the nearest name: one that begins the same, or is spelt alike."""
    longer = [rule for rule in rules if name and rule.startswith(f"{name}_")]
    near = longer or get_close_matches(name, rules, 1)
    return f"did you mean {near[0]}? " if near else ""
