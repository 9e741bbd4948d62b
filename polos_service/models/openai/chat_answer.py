"""Chat completions: the chunks of a streamed answer."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import orjson

from polos.v1.event_pb2 import FinishReason
from polos_service.limits import CALLS_LIMIT
from polos_service.models.draft import NOTHING, Delta, Draft, Growing, usage_of
from polos_service.models.failures import Failures

FINISH_REASONS = {
    "stop": FinishReason.FINISH_REASON_STOP,
    "length": FinishReason.FINISH_REASON_LENGTH,
    "model_length": FinishReason.FINISH_REASON_LENGTH,
    "content_filter": FinishReason.FINISH_REASON_CONTENT_FILTER,
    "tool_calls": FinishReason.FINISH_REASON_TOOL_CALLS,
    "function_call": FinishReason.FINISH_REASON_TOOL_CALLS,
}
"""By the provider's word; a word that is not here counts as not told."""


class Chunks:
    """Reads the chunks of one answer.

    Attributes:
        over: True once `[DONE]` came.

    """

    def __init__(self, draft: Draft, failures: Failures) -> None:
        self.over = False
        self._draft = draft
        self._failures = failures
        self._by_index: dict[float, Growing] = {}

    def take(self, data: bytes) -> Delta:
        """Take a chunk.

        Raises:
            StepError: the chunk is none, reports an error, or exceeds a bound.

        """
        if data == b"[DONE]":
            self.over = True
            return NOTHING
        try:
            return self._take(_parsed(data))
        except (ValueError, TypeError, AttributeError, LookupError, RecursionError):
            # Whatever shape a server sends instead of a chunk: checking each level of each
            # chunk first would cost more than all the rest.
            pass
        raise self._failures.malformed("a chunk is not a chat completion chunk")

    def _take(self, chunk: dict[str, Any]) -> Delta:
        if error := chunk.get("error"):
            raise self._failures.told(error)
        if usage := chunk.get("usage"):
            self._draft.usage = _usage(usage)
        if not (choices := chunk["choices"]):
            return NOTHING
        choice = choices[0]
        if finish := choice.get("finish_reason"):
            self._finish(finish)
        delta = choice.get("delta") or {}
        if calls := delta.get("tool_calls"):
            if len(calls) > CALLS_LIMIT:
                raise self._failures.too_large(f"{CALLS_LIMIT} tool calls")
            for fragment in calls:
                self._add(fragment)
        if reasoning := delta.get("reasoning_content"):
            reasoning = self._draft.reasoning(reasoning)
        text = (delta.get("content") or "") + (delta.get("refusal") or "")
        return Delta(self._draft.text(text) if text else "", reasoning or None)

    def _finish(self, told: object) -> None:
        if told == "error":
            raise self._failures.told(None)
        word = told if isinstance(told, str) else "unknown"
        self._draft.finish = FINISH_REASONS.get(word, FinishReason.FINISH_REASON_UNSPECIFIED)

    def _add(self, fragment: dict[str, Any]) -> None:
        call_id, function = fragment.get("id") or "", fragment.get("function") or {}
        name = function.get("name") or ""
        call = self._find(fragment.get("index"), call_id, name)
        call.id = call.id or self._draft.count(call_id)
        call.name = call.name or self._draft.count(name)
        if arguments := function.get("arguments"):
            call.content.write(self._draft.count(arguments))

    def _find(self, index: float | None, call_id: str, name: str) -> Growing:
        """Return the call that a fragment belongs to.

        Another id is another call, even under the same index: some servers number each
        call 0. Without an index and an id, a name begins a call and the rest follows it.
        """
        if index is None:
            last = self._draft.calls[-1] if self._draft.calls else None
            known = None if name and not call_id else last
        elif isinstance(index, int | float):
            known = self._by_index.get(index)
        else:
            raise TypeError(index)
        if known is not None and (not call_id or not known.id or call_id == known.id):
            return known
        call = self._draft.call()
        if index is not None:
            self._by_index[index] = call
        return call


def _parsed(data: bytes) -> Any:
    """Return the JSON value; strings of it may hold half of a surrogate pair.

    A server in JavaScript cuts its texts between the halves, and JSON can tell one alone.
    """
    try:
        return orjson.loads(data)
    except ValueError:
        if b"\\ud" not in data and b"\\uD" not in data:
            raise
    return json.loads(data.decode())


def _usage(told: Mapping[str, Any]) -> Any:
    read = told.get("prompt_tokens_details") or {}
    written = told.get("completion_tokens_details") or {}
    return usage_of(
        told.get("prompt_tokens"),
        told.get("completion_tokens"),
        cached=read.get("cached_tokens"),
        cache_written=read.get("cache_write_tokens"),
        reasoning=written.get("reasoning_tokens"),
    )
