"""How an answer ended, in the words of every API: servers that translate one leave its words."""

from __future__ import annotations

from polos.v1.event_pb2 import FinishReason
from polos_service.models.failures import Failures

_REASONS = {
    FinishReason.FINISH_REASON_STOP: (
        "stop stop_sequence end_turn end eos eos_token complete completed finished"
    ),
    FinishReason.FINISH_REASON_LENGTH: (
        "length max_tokens max_output_tokens max_completion_tokens max_length model_length "
        # With the last one, tools of the provider's own reached a limit: the model would go on.
        "token_limit context_length_exceeded model_context_window_exceeded pause_turn"
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

FAILED = frozenset(
    {"error", "network_error", "insufficient_system_resource", "malformed_function_call"}
)
"""Finish reasons of answers that failed."""

CUT = frozenset({"abort", "aborted", "cancelled", "canceled"})
"""Finish reasons of answers that the server gave up."""


def finish_reason(told: object, field: str, failures: Failures) -> FinishReason.ValueType | None:
    """Return how an answer ended; None if `told` says nothing of it.

    Args:
        told: what the provider said; any JSON value.
        field: where it said so, for a message.
        failures: makes the errors.

    Raises:
        StepError: the answer failed, or the server gave it up.

    """
    word = _word(told)
    if not word:
        return None
    if word in FAILED:
        raise failures.told({"message": f"{field} is {word!r}"})
    if word in CUT:
        raise failures.cut_short(f"the server aborted it ({word})")
    return FINISH_REASONS.get(word, FinishReason.FINISH_REASON_UNSPECIFIED)


def _word(told: object) -> str:
    """Return a finish reason in lower case with `_` between its parts; empty if it says nothing."""
    if isinstance(told, dict):
        told = told.get("type") or told.get("reason")
    if told is None or told is False or told == "":
        return ""
    if not isinstance(told, str):
        return "unknown"
    word = told.strip().lower().replace("-", "_").replace(" ", "_").rpartition(".")[2]
    return "" if word in ("null", "none") else word
