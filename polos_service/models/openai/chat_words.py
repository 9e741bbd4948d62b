"""What a chat completion says of its end: finish reasons and tokens."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from polos.v1.event_pb2 import FinishReason, Usage
from polos_service.models.draft import usage_of

_REASONS = {
    FinishReason.FINISH_REASON_STOP: (
        "stop stop_sequence end_turn end eos eos_token complete completed finished"
    ),
    FinishReason.FINISH_REASON_LENGTH: (
        "length max_tokens max_output_tokens max_completion_tokens max_length model_length "
        "token_limit context_length_exceeded model_context_window_exceeded"
    ),
    FinishReason.FINISH_REASON_CONTENT_FILTER: (
        "content_filter content_filtered contentfilter safety recitation blocklist spii sensitive "
        "prohibited_content image_safety language guardrail_intervened"
    ),
    FinishReason.FINISH_REASON_TOOL_CALLS: (
        "tool_calls tool_call tool_use tool function_call function_calls"
    ),
    FinishReason.FINISH_REASON_REFUSAL: "refusal",
}

FINISH_REASONS = {word: reason for reason, words in _REASONS.items() for word in words.split()}
"""By the provider's word, in lower case with `_` between its parts."""

_FAILED = re.compile(
    "error(?!_(?:limit|toxic))|fail|exception|malformed|insufficient_system|call_filter"
    "|unexpected_tool|too_many_tool"
)
"""What stands in the finish reason of an answer that failed."""

_CUT = re.compile("abort|cancel|interrupt|time_?out|timed_out|disconnect|preempt")
"""What stands in the finish reason of an answer that the server gave up."""

_LIKE = (
    (
        FinishReason.FINISH_REASON_LENGTH,
        re.compile("length|tokens|limit|incomplete|truncat|context_window|max_output"),
    ),
    (
        FinishReason.FINISH_REASON_CONTENT_FILTER,
        re.compile("filter|safety|moderat|sensitive|prohibited|toxic|guardrail|blocked|policy"),
    ),
    (FinishReason.FINISH_REASON_REFUSAL, re.compile("refus")),
)
"""What stands in finish reasons that are not listed, if they void calls: no server's list is
complete, and a call that was cut must not be made."""


MAX_DIGITS = 10
"""Digits of a number of tokens that is a text."""


def word_of(told: object) -> str:
    """Return a finish reason in lower case with `_` between its parts; empty if it says nothing."""
    if isinstance(told, dict):
        told = told.get("type") or told.get("reason")
    if told is None or told is False or told == "":
        return ""
    if not isinstance(told, str):
        return "unknown"
    word = told.partition(":")[0].strip().lower().replace("-", "_").replace(" ", "_")
    word = word.rpartition(".")[2].removeprefix("finish_reason_")
    return "" if word in ("null", "none") else word


def failed(word: str) -> bool:
    """Return whether a finish reason, as `word_of` returns it, says that the answer failed."""
    return word not in FINISH_REASONS and _FAILED.search(word) is not None


def given_up(word: str) -> bool:
    """Return whether a finish reason says that the server gave the answer up."""
    return word not in FINISH_REASONS and _CUT.search(word) is not None


def reason_of(word: str) -> FinishReason.ValueType:
    """Return what a finish reason means that is neither failed nor given up."""
    if (reason := FINISH_REASONS.get(word)) is not None:
        return reason
    found = (reason for reason, like in _LIKE if like.search(word))
    return next(found, FinishReason.FINISH_REASON_UNSPECIFIED)


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
