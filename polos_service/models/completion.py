"""A streamed chat completion, put together from its chunks."""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson

from polos.v1.event_pb2 import Cost, FinishReason, ToolCall, Usage
from polos_service.errors import StepError
from polos_service.limits import CALLS_LIMIT, ID_LIMIT
from polos_service.models import ModelAnswer
from polos_service.models.failures import Failures

MAX_ANSWER_BYTES = 480 * 1024
"""Bytes of text, tool calls and reasoning of one answer together, as they come."""

MAX_STORED_BYTES = 496 * 1024
"""The same as JSON, in which quotes and control characters take more. It has to fit into an event
and into what is stored beside it; 16 KiB are for the marks of JSON itself."""

FINISH_REASONS = {
    "stop": FinishReason.FINISH_REASON_STOP,
    "length": FinishReason.FINISH_REASON_LENGTH,
    "model_length": FinishReason.FINISH_REASON_LENGTH,
    "content_filter": FinishReason.FINISH_REASON_CONTENT_FILTER,
    "tool_calls": FinishReason.FINISH_REASON_TOOL_CALLS,
    "function_call": FinishReason.FINISH_REASON_TOOL_CALLS,
}
"""By the provider's word; a word that is not here counts as not told."""

_HALF = re.compile("[\ud800-\udfff]")
"""Half of a surrogate pair."""

MAX_INT32 = 2**31 - 1
"""The largest number of tokens that an event can hold."""


@dataclass(slots=True)
class _Call:
    id: str = ""
    name: str = ""
    arguments: list[str] = field(default_factory=list)


class Completion:
    """One answer, growing.

    Attributes:
        finish: the provider's word for how it ended; empty as long as it has not.
        usage: tokens; None until the provider tells them.

    """

    def __init__(self, failures: Failures) -> None:
        self.finish = ""
        self.usage: Usage | None = None
        self._failures = failures
        self._texts: list[str] = []
        self._reasoning: list[str] = []
        self._calls: list[_Call] = []
        self._by_index: dict[float, _Call] = {}
        self._size = 0
        self._half = ""

    @property
    def begun(self) -> bool:
        """Whether the model has said anything."""
        return self._size > 0

    def take(self, data: bytes) -> str:
        """Add a chunk and return the text in it; empty if it has none.

        Raises:
            StepError: the chunk is none, reports an error, or exceeds MAX_ANSWER_BYTES.

        """
        try:
            return self._take(_parsed(data))
        except (ValueError, TypeError, AttributeError, LookupError, RecursionError):
            # Whatever shape a server sends instead of a chunk: checking each level of each
            # chunk first would cost more than all the rest.
            pass
        raise self._failures.malformed("a chunk is not a chat completion chunk")

    def _take(self, chunk: dict[str, Any]) -> str:
        if error := chunk.get("error"):
            raise self._failures.told(error)
        if usage := chunk.get("usage"):
            self.usage = _usage(usage)
        if not (choices := chunk["choices"]):
            return ""
        choice = choices[0]
        if finish := choice.get("finish_reason"):
            self.finish = finish if isinstance(finish, str) else "unknown"
        delta = choice.get("delta") or {}
        if calls := delta.get("tool_calls"):
            if len(calls) > CALLS_LIMIT:
                raise self._failures.too_large(f"{CALLS_LIMIT} tool calls")
            for fragment in calls:
                self._add(fragment)
        if reasoning := delta.get("reasoning_content"):
            self._reasoning.append(self._count(reasoning))
        return self._text(delta)

    def _text(self, delta: dict[str, Any]) -> str:
        text = (delta.get("content") or "") + (delta.get("refusal") or "")
        if text and (self._half or (not text.isascii() and _HALF.search(text))):
            text = self._joined(text)
        if text:
            self._texts.append(self._count(text))
        return text

    def _joined(self, text: str) -> str:
        """Put half of a surrogate pair that ended the text before in front, and keep one back."""
        text = self._half + text
        self._half = text[-1] if "\ud800" <= text[-1] <= "\udbff" else ""
        return _whole(text.removesuffix(self._half))

    def _count(self, text: str) -> str:
        self._size += len(text) if text.isascii() else len(text.encode(errors="surrogatepass"))
        if self._size > MAX_ANSWER_BYTES:
            raise self._too_large()
        return text

    def _add(self, fragment: dict[str, Any]) -> None:
        call_id, function = fragment.get("id") or "", fragment.get("function") or {}
        name = function.get("name") or ""
        call = self._find(fragment.get("index"), call_id, name)
        call.id = call.id or self._count(call_id)
        call.name = call.name or self._count(name)
        if arguments := function.get("arguments"):
            call.arguments.append(self._count(arguments))

    def _find(self, index: float | None, call_id: str, name: str) -> _Call:
        """Return the call that a fragment belongs to.

        Another id is another call, even under the same index: some servers number each
        call 0. Without an index and an id, a name begins a call and the rest follows it.
        """
        if index is None:
            last = self._calls[-1] if self._calls else None
            known = None if name and not call_id else last
        elif isinstance(index, int | float):
            known = self._by_index.get(index)
        else:
            raise TypeError(index)
        if known is not None and (not call_id or not known.id or call_id == known.id):
            return known
        if len(self._calls) == CALLS_LIMIT:
            raise self._failures.too_large(f"{CALLS_LIMIT} tool calls")
        call = _Call()
        self._calls.append(call)
        if index is not None:
            self._by_index[index] = call
        return call

    def answer(self, cost: Cost | None) -> ModelAnswer:
        """Return the whole answer.

        Raises:
            StepError: it has no finish reason, a tool call without a usable name, or exceeds
                MAX_STORED_BYTES.

        """
        if not self.finish:
            raise self._failures.cut_short()
        if self.finish == "error":
            raise self._failures.told(None)
        text, reasoning = "".join(self._texts), _whole("".join(self._reasoning))
        reason = self._finish_reason()
        # The calls of an answer that was cut or filtered are not whole, and not to be made.
        asked = self._calls if reason == FinishReason.FINISH_REASON_TOOL_CALLS else []
        calls = [self._tool_call(call) for call in asked]
        stored = [text, reasoning, *((one.id, one.name, one.arguments_json) for one in calls)]
        if len(orjson.dumps(stored)) > MAX_STORED_BYTES:
            raise self._too_large()
        return ModelAnswer(
            text=text,
            tool_calls=calls,
            finish_reason=reason,
            usage=self.usage,
            cost=cost,
            extra={"reasoning_content": reasoning} if reasoning else {},
        )

    def _finish_reason(self) -> FinishReason.ValueType:
        told = FINISH_REASONS.get(self.finish, FinishReason.FINISH_REASON_UNSPECIFIED)
        # Some servers say "stop" though they ask for tools, or "tool_calls" and ask for none.
        if self._calls and told == FinishReason.FINISH_REASON_STOP:
            return FinishReason.FINISH_REASON_TOOL_CALLS
        if not self._calls and told == FinishReason.FINISH_REASON_TOOL_CALLS:
            return FinishReason.FINISH_REASON_STOP
        return told

    def _tool_call(self, call: _Call) -> ToolCall:
        if not call.name:
            raise self._failures.malformed("a tool call has no name")
        # Several servers write no arguments as no text, which is not JSON, and leave out the id.
        arguments = _whole("".join(call.arguments)) or "{}"
        # A provider only compares the ids that it gets: one of ours does as well.
        usable = 0 < len(call.id) <= ID_LIMIT and call.id.isascii() and call.id.isprintable()
        own = not usable or self._failures.tells(call.id)
        return ToolCall(
            id=f"call_{uuid.uuid4().hex}" if own else call.id,
            name=_whole(call.name),
            arguments_json=arguments,
        )

    def _too_large(self) -> StepError:
        return self._failures.too_large(f"{MAX_ANSWER_BYTES} bytes")


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


def _whole(text: str) -> str:
    """Return the text with halves of surrogate pairs joined; one alone becomes U+FFFD."""
    if _HALF.search(text) is None:
        return text
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def _usage(told: Mapping[str, Any]) -> Usage | None:
    """Return the tokens; None if they are not numbers that make sense: unknown is not 0."""
    read, written = _tokens(told, "prompt_tokens"), _tokens(told, "completion_tokens")
    if read is None or written is None or read + written > MAX_INT32:
        return None
    details = told.get("prompt_tokens_details") or {}
    return Usage(
        input_tokens=read,
        output_tokens=written,
        total_tokens=read + written,
        cache_read_input_tokens=_tokens(details, "cached_tokens"),
        cache_creation_input_tokens=_tokens(details, "cache_write_tokens"),
    )


def _tokens(told: Mapping[str, Any], name: str) -> int | None:
    count = told.get(name)
    if not isinstance(count, int) or isinstance(count, bool):
        return None
    return count if 0 <= count <= MAX_INT32 else None
