"""How an answer ended, in the words of every API: servers that translate one leave its words."""

from __future__ import annotations

import re

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
"""What stands in finish reasons that are not listed, if they void calls: no list is complete, and
a call that was cut must not be made."""


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
    if word in FINISH_REASONS:
        return FINISH_REASONS[word]
    failed, cut = _FAILED.search(word), _CUT.search(word)
    if (failed or cut) and isinstance(told, dict) and told.get("message"):
        raise failures.told(told)
    if failed:
        raise failures.told({"message": f"{field} is {str(told)!r}"})
    if cut:
        raise failures.cut_short(f"the server aborted it ({word})")
    found = (reason for reason, like in _LIKE if like.search(word))
    return next(found, FinishReason.FINISH_REASON_UNSPECIFIED)


def _word(told: object) -> str:
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
