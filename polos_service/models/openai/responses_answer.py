"""The Responses API: the events of a streamed answer."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import orjson

from polos.v1.event_pb2 import FinishReason, Usage
from polos_service.models.draft import NOTHING, Delta, Draft, Pieces, joined
from polos_service.models.failures import Failures
from polos_service.models.lenient import DONE, values
from polos_service.models.openai.responses_items import (
    CALL,
    COSTLY_BYTES,
    MESSAGE,
    REASONING,
    is_item,
    texts,
)
from polos_service.models.openai.responses_output import Item, Items, Place, UnsaidError
from polos_service.models.usage import usage_of

TEXT_DELTA = "response.output_text.delta"
"""The type of nearly all events."""

ENDS = ("completed", "incomplete", "failed", "cancelled")
"""The statuses of a response that is over."""

FILTERED = FinishReason.FINISH_REASON_CONTENT_FILTER
"""A filter cut the answer; any other reason why it is incomplete is a bound on its length."""

REFUSED = FinishReason.FINISH_REASON_REFUSAL
"""The answer is a refusal, and nothing else."""


class Events:
    """Reads the events of one answer. Events of unknown types are skipped.

    Attributes:
        over: True once the response is over.

    """

    def __init__(self, draft: Draft, failures: Failures) -> None:
        self.over = False
        self._draft = draft
        self._failures = failures
        self._items = Items(draft, failures)
        self._flowing = False  # whether text came last
        self._index: object = None  # the index of the item with that text
        self._handlers: Mapping[object, Callable[[dict[str, Any]], Delta]] = {
            TEXT_DELTA: self._text,
            "response.content_part.delta": self._text,
            "response.output_text.done": self._text_done,
            "response.refusal.delta": self._refusal,
            "response.refusal.done": self._text_done,
            "response.content_part.done": self._text_done,
            "response.reasoning_summary_text.delta": self._thought,
            "response.reasoning_summary_text.done": self._text_done,
            "response.reasoning_summary_part.done": self._text_done,
            "response.reasoning_text.delta": self._thought,
            "response.reasoning_text.done": self._text_done,
            "response.function_call_arguments.delta": self._arguments,
            "response.function_call_arguments.done": self._arguments_done,
            "response.output_item.added": self._item,
            "response.output_item.done": self._item_done,
            "response.completed": self._end,
            "response.done": self._end,
            "response.incomplete": self._end,
            "response.failed": self._end,
            "response.cancelled": self._end,
            "error": self._error,
        }

    def take(self, data: bytes) -> Pieces:
        """Take an event, or a whole response.

        Raises:
            StepError: it reports an error, cannot be understood, or exceeds a bound.

        """
        large = len(data) >= COSTLY_BYTES
        try:
            event = orjson.loads(self._items.spared(data) if large else data)
        except ValueError:
            event = None
        if type(event) is not dict:
            return self._unusual(data)
        if (
            self._flowing
            and event.get("type") == TEXT_DELTA
            and event.get("output_index") == self._index
            and type(text := event.get("delta")) is str
        ):
            return self._draft.text(text), None
        return self._large(event, data) if large else self._event(event)

    def _unusual(self, data: bytes) -> Delta:
        """Take data that is not a plain JSON object."""
        try:
            found = values(data.strip())
        except ValueError:
            found = []
        if not found and data.lstrip().startswith((b"{", b"[")):
            raise self._failures.malformed(f"an event of {len(data)} bytes is not valid JSON")
        deltas = [self._event(one) for one in found if isinstance(one, dict)]
        self.over = self.over or DONE in found
        return joined(deltas)

    def _large(self, event: dict[str, Any], data: bytes) -> Delta:
        """Take an event of which what it repeats was cut out; if that is needed, take all of it."""
        try:
            if not isinstance(event.get("delta"), int):
                return self._event(event)
        except UnsaidError:
            pass
        return self._event(orjson.loads(data))

    def _event(self, event: dict[str, Any]) -> Delta:
        try:
            return self._take(event)
        except UnsaidError:
            raise
        except (ValueError, TypeError, AttributeError, LookupError):
            # Whatever shape a server sends: checking each level of each event first would cost
            # more than all the rest.
            pass
        raise self._failures.malformed(self._unexpected(event), retryable=False)

    def _take(self, event: dict[str, Any]) -> Delta:
        self._flowing = False
        kind = event.get("type")
        if isinstance(kind, str) and (handler := self._handlers.get(kind)):
            return handler(event)
        if isinstance(kind, str) and kind.startswith("response."):
            return NOTHING
        if event.get("error"):
            raise self._failures.told(event["error"])
        if event.get("object") == "response":
            return self._end({"type": "", "response": event})
        return NOTHING

    def _item(self, event: dict[str, Any]) -> Delta:
        if not is_item(told := event.get("item")):
            return NOTHING  # its end tells it again
        item = self._items.begin(told["type"], event.get("output_index"), told.get("id"))
        if told.get("status") == "completed" and (any(texts(told)) or told.get("arguments")):
            return self._items.end(item, told)  # some servers send it at once, and whole
        if item.type == CALL:
            self._items.describe(item, told)
        return Delta(reasoning="") if item.type == REASONING else NOTHING

    def _item_done(self, event: dict[str, Any]) -> Delta:
        told = event["item"]
        item = self._items.find(told["type"], event.get("output_index"), told.get("id"))
        return NOTHING if item.closed else self._items.end(item, told)

    def _text(self, event: dict[str, Any]) -> Delta:
        delta = self._items.say(self._about(event, MESSAGE), event["delta"] or "", _place(event))
        self._index, self._flowing = event.get("output_index"), True
        return delta

    def _refusal(self, event: dict[str, Any]) -> Delta:
        self._items.refused = True
        return self._items.say(self._about(event, MESSAGE), event["delta"] or "", _place(event))

    def _thought(self, event: dict[str, Any]) -> Delta:
        return self._items.say(self._about(event, REASONING), event["delta"] or "", _place(event))

    def _text_done(self, event: dict[str, Any]) -> Delta:
        told = event.get("part") or event
        self._items.refused |= bool(told.get("refusal"))
        text = told.get("text") or told.get("refusal")
        if not text:
            return NOTHING
        thinks = "reasoning" in event["type"] or told.get("type") == "reasoning_text"
        item = self._about(event, REASONING if thinks else MESSAGE)
        return NOTHING if item.closed else self._items.end_text(item, text, _place(event))

    def _arguments(self, event: dict[str, Any]) -> Delta:
        piece = self._draft.count(event["delta"] or "")
        self._about(event, CALL).content.write(piece)
        return NOTHING

    def _arguments_done(self, event: dict[str, Any]) -> Delta:
        item = self._about(event, CALL)
        if not item.closed:
            told = {name: event.get(name) for name in ("name", "arguments")}
            self._items.describe(item, told)
        return NOTHING

    def _about(self, event: dict[str, Any], item_type: str) -> Item:
        return self._items.find(item_type, event.get("output_index"), event.get("item_id"))

    def _error(self, event: dict[str, Any]) -> Delta:
        raise self._failures.told(event.get("error") or event)

    def _end(self, event: dict[str, Any]) -> Delta:
        """Take the response itself, which repeats everything.

        Its status is more exact than the type of the event, if it is one of an end.
        """
        response = event.get("response") or {}
        told, status = event["type"].removeprefix("response."), response.get("status")
        end = status if status in ENDS or not told else told
        if end == "failed":
            raise self._failures.told(response.get("error") or event.get("error"))
        if end in ("cancelled", "queued", "in_progress"):
            raise self._failures.cut_short(f"the provider says that it is {end}")
        delta = self._items.end_all(response.get("output"))
        self._draft.usage = _usage(response.get("usage"))
        if end == "incomplete":
            filtered = (response.get("incomplete_details") or {}).get("reason") == "content_filter"
            self._draft.finish = FILTERED if filtered else FinishReason.FINISH_REASON_LENGTH
        else:
            self._items.end_calls()
            refused = self._items.refused and not self._draft.calls
            self._draft.finish = REFUSED if refused else FinishReason.FINISH_REASON_STOP
        self._items.arrange()
        self.over = True
        return delta

    def _unexpected(self, event: Mapping[str, Any]) -> str:
        """Say which event, and if possible which member of it, cannot be understood."""
        kind = event.get("type")
        known = f" {kind!r}" if isinstance(kind, str) and kind in self._handlers else ""
        for name, shape in (("delta", "text"), ("item", "an object"), ("response", "an object")):
            if name in event and not isinstance(event[name], str if shape == "text" else dict):
                return f"{name!r} of an event{known} is not {shape}"
        return f"an event{known} has an unexpected form"


def _place(event: Mapping[str, Any]) -> Place:
    name = "summary" if "summary_index" in event or "summary" in event["type"] else "content"
    return name, event.get(f"{name}_index")


def _usage(told: object) -> Usage | None:
    if not isinstance(told, dict):
        return None
    read, written = told.get("input_tokens_details"), told.get("output_tokens_details")
    read, written = (one if isinstance(one, dict) else {} for one in (read, written))
    return usage_of(
        told.get("input_tokens"),
        told.get("output_tokens"),
        cached=read.get("cached_tokens"),
        cache_written=read.get("cache_write_tokens"),
        reasoning=written.get("reasoning_tokens"),
    )
