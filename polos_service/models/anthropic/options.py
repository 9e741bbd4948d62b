"""Which parameters of a message a run may choose, and what they look like."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from polos_service.models.options import COUNT, OBJECT, TEXT, Rule, broken, number


def _is_stops(value: Any) -> bool:
    """Return whether each is a text that is not blank: the API refuses any other."""
    return (
        isinstance(value, list)
        and bool(value)
        and all(isinstance(stop, str) and stop.strip() for stop in value)
    )


def _has_type(value: Any) -> bool:
    return isinstance(value, dict) and isinstance(value.get("type"), str)


_SHARE = number(0, 1)
_TYPED = Rule(_has_type, "must be an object with a type")

RULES: Mapping[str, Rule] = {
    "max_tokens": COUNT,
    "metadata": OBJECT,
    "output_config": OBJECT,
    "service_tier": TEXT,
    "stop_sequences": Rule(_is_stops, "must be a list of strings that are not blank"),
    "temperature": _SHARE,
    "thinking": _TYPED,
    "tool_choice": _TYPED,
    "top_k": COUNT,
    "top_p": _SHARE,
}
"""What may be chosen. All else stays with the service: address, key, headers, messages, tools."""


def check(options: Mapping[str, Any]) -> Mapping[str, str]:
    """Return what is wrong with `options`, by name; empty if nothing is."""
    return broken(options, RULES)
