"""The tokens that a chat completion tells."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from polos.v1.event_pb2 import Usage
from polos_service.models.usage import usage_of

MAX_DIGITS = 10
"""Digits of a number of tokens that is a text."""


def usage_told(chunk: Mapping[str, Any], choice: Mapping[str, Any]) -> Usage | None:
    """Return the tokens that a chunk tells, wherever it does; None if it tells none."""
    groq = chunk.get("x_groq")
    for holder in (chunk, choice, groq if isinstance(groq, dict) else {}):
        told = holder.get("usage")
        if isinstance(told, dict) and (usage := _usage(told)) is not None:
            return usage
    return None


def _usage(told: Mapping[str, Any]) -> Usage | None:
    read = _first_object(told, "prompt_tokens_details", "input_tokens_details")
    written = _first_object(told, "completion_tokens_details", "output_tokens_details")
    tokens_in = _first(told, "prompt_tokens", "input_tokens", "promptTokens", "inputTokens")
    tokens_out = _first(
        told, "completion_tokens", "output_tokens", "completionTokens", "outputTokens"
    )
    if not (_number(tokens_in) or _number(tokens_out)):
        return None  # what counts nothing at all was not counted: a prompt has tokens
    return usage_of(
        _number(tokens_in),
        _number(tokens_out),
        cached=_first(
            {**told, **read},
            "cached_tokens",
            "prompt_cache_hit_tokens",
            "cache_read_input_tokens",
        ),
        cache_written=_first(
            {**told, **read},
            "cache_write_tokens",
            "cache_creation_input_tokens",
            "cache_creation_tokens",
        ),
        reasoning=_first({**told, **written}, "reasoning_tokens"),
    )


def _number(told: object) -> object:
    """Return the number that a text holds; anything else as it is."""
    if isinstance(told, str) and told.isdecimal() and len(told) <= MAX_DIGITS:
        return int(told)
    return told


def _first(told: Mapping[str, Any], *names: str) -> object:
    return next((told[name] for name in names if told.get(name) is not None), None)


def _first_object(told: Mapping[str, Any], *names: str) -> Mapping[str, Any]:
    found = _first(told, *names)
    return found if isinstance(found, dict) else {}
