"""Which parameters of a message a run may choose, and what they look like."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from difflib import get_close_matches
from typing import Any, NamedTuple


class _Rule(NamedTuple):
    holds: Callable[[Any], bool]
    what: str


def _is_share(value: Any) -> bool:
    return type(value) in (int, float) and 0 <= value <= 1


def _is_count(value: Any) -> bool:
    return type(value) is int and value > 0


def _is_stops(value: Any) -> bool:
    """Return whether each is a text that is not blank: the API refuses any other."""
    return (
        isinstance(value, list)
        and bool(value)
        and all(isinstance(stop, str) and stop.strip() for stop in value)
    )


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and bool(value)


def _has_type(value: Any) -> bool:
    return isinstance(value, dict) and isinstance(value.get("type"), str)


_COUNT = _Rule(_is_count, "must be an integer above 0")
_OBJECT = _Rule(lambda value: isinstance(value, dict), "must be an object")
_SHARE = _Rule(_is_share, "must be a number from 0 to 1")
_TYPED = _Rule(_has_type, "must be an object with a type")

RULES: Mapping[str, _Rule] = {
    "max_tokens": _COUNT,
    "metadata": _OBJECT,
    "output_config": _OBJECT,
    "service_tier": _Rule(_is_text, "must be a non-empty string"),
    "stop_sequences": _Rule(_is_stops, "must be a list of strings that are not blank"),
    "temperature": _SHARE,
    "thinking": _TYPED,
    "tool_choice": _TYPED,
    "top_k": _COUNT,
    "top_p": _SHARE,
}
"""What may be chosen. All else stays with the service: address, key, headers, messages, tools."""


def check(options: Mapping[str, Any]) -> Mapping[str, str]:
    """Return what is wrong with `options`, by name; empty if nothing is."""
    wrong = {}
    for name, value in options.items():
        if name not in RULES:
            meant = "".join(f"did you mean {near}? " for near in get_close_matches(name, RULES, 1))
            wrong[name] = f"cannot be set for a run; {meant}allowed: {', '.join(RULES)}"
        elif not RULES[name].holds(value):
            wrong[name] = RULES[name].what
    return wrong
