"""The Messages API: the events of a streamed answer, or the whole of it.

An answer is a list of content blocks. Each begins, grows by deltas, and ends; the message
itself does so around them. Servers that speak the API leave things out: the kind of an event
or a delta, the beginning or the end of a block, the event after the last one. What an event
says is taken from what stands in it, as far as that is clear.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import Any

import orjson

from polos.v1.event_pb2 import FinishReason
from polos_service.models.anthropic.complaint import complaint
from polos_service.models.anthropic.growing import GrowingBlock
from polos_service.models.anthropic.tokens import Tokens
from polos_service.models.draft import NOTHING, Delta, Draft, Pieces, joined
from polos_service.models.failures import Failures
from polos_service.models.finish import finish_reason
from polos_service.models.lenient import DONE, values
from polos_service.models.messages import Call, Reasoning, Text

_SHAPES = (
    ("choices", ""),
    ("error", "error"),
    ("message", "message_start"),
    ("content_block", "content_block_start"),
    ("content", "message"),
    ("usage", "message_delta"),
)
"""The kind of an event that does not tell it, by a member that it has; the first one decides."""


class MessageEvents:
    """Reads the events of one answer.

    Attributes:
        over: True once the message ended.

    """

    def __init__(self, draft: Draft, failures: Failures) -> None:
        self.over = False
        self._draft = draft
        self._failures = failures
        self._blocks: list[GrowingBlock] = []
        self._by_index: dict[object, GrowingBlock] = {}
        self._at: object = None
        self._tokens = Tokens()
        draft.before_answer.append(self._settle)

    def take(self, data: bytes) -> Pieces:
        """Take the data of an event, or a whole message.

        Raises:
            StepError: it reports an error, cannot be understood, or exceeds a bound.

        """
        try:
            event = orjson.loads(data)
        except ValueError:
            event = None
        if event is None:
            return joined([self._take(one) for one in self._values(data) if one != DONE])
        return self._take(event)

    def _values(self, data: bytes) -> list[Any]:
        """Return the values that stand in data which is not plain JSON."""
        found: list[Any] = []
        with contextlib.suppress(ValueError):
            found = values(data)
        if not found:
            raise self._failures.malformed(f"an event of {len(data)} bytes is not valid JSON")
        self.over = self.over or DONE in found
        return found

    def _take(self, event: dict[str, Any]) -> Pieces:
        try:
            kind = event.get("type") or _kind(event)
            if kind == "content_block_delta":
                return self._grow(event.get("index", self._at), event.get("delta") or {})
            return self._other(kind, event)
        except (ValueError, TypeError, AttributeError, LookupError):
            # Whatever shape a server sends instead of an event: checking each level of each
            # event first would cost more than all the rest.
            pass
        raise self._failures.malformed(complaint(event), retryable=False)

    def _other(self, kind: object, event: dict[str, Any]) -> Delta:
        """Take an event that is not a delta of a block."""
        match kind:
            case "content_block_start":
                return self._begin(event.get("index"), event.get("content_block") or {})
            case "message_start":
                return self._start(event.get("message") or {})
            case "message_delta":
                return self._finish(event.get("delta") or {}, event.get("usage"))
            case "message_stop":
                self._close()
            case "message":
                return self._whole(event)
            case _:
                self._unknown(kind, event)
        return NOTHING

    def _grow(self, index: object, delta: dict[str, Any]) -> Pieces:
        """Add to a block. The kind of a delta is told by what stands in it."""
        if index != self._at:
            self._go_to(index)
        block = self._by_index.get(index)
        if block is not None and block.opaque:
            block.grow(delta)
            return NOTHING
        if text := delta.get("text"):
            return self._draft.text(text), None
        if thought := delta.get("thinking"):
            return "", self._draft.reasoning(thought)
        if (fragment := delta.get("partial_json")) is not None:
            self._at_block(index, Call, "tool_use").add_arguments(fragment)
        elif signature := delta.get("signature"):
            self._at_block(index, Reasoning, "thinking").sign(signature)
        elif citation := delta.get("citation"):
            self._at_block(index, Text, "text").keep({"citations": [citation]})
        return NOTHING

    def _at_block(
        self, index: object, kind: type[Text | Reasoning | Call], called: str
    ) -> GrowingBlock:
        """Return the block of this index, or another one if that is of another kind."""
        block = self._by_index.get(index)
        if block is None or block.part.kind is not kind:
            self._begin(index, {"type": called})
        return self._by_index[index]

    def _begin(self, index: object, told: dict[str, Any]) -> Delta:
        """Begin a block; the text that stands in it already is taken."""
        self._at = len(self._blocks) if index is None else index
        if not told:
            self._go_to(index)
            return NOTHING
        self._by_index[self._at] = block = GrowingBlock(self._draft, told)
        self._blocks.append(block)
        match told.get("type"):
            case "text":
                return Delta(self._draft.text(told.get("text") or ""))
            case "thinking":
                return Delta("", self._draft.reasoning(told.get("thinking") or ""))
            case "redacted_thinking":
                return Delta("", "")
        return NOTHING

    def _go_to(self, index: object) -> None:
        """Let what comes next add to the block of this index, if there is one."""
        self._at = index
        if index in self._by_index:
            self._draft.resume(self._by_index[index].part)
        else:
            self._draft.close_part()

    def _start(self, message: dict[str, Any]) -> Delta:
        usage = message.get("usage")
        # The output tokens that stand here are those of the first moment.
        known = {**usage, "output_tokens": None} if isinstance(usage, dict) else None
        self._draft.usage = self._tokens.add(known)
        return self._content(message.get("content"))

    def _whole(self, message: dict[str, Any]) -> Delta:
        """Take a message that comes as a whole, not in a stream."""
        delta = joined(
            [self._content(message["content"]), self._finish(message, message.get("usage"))]
        )
        self._close()
        return delta

    def _content(self, content: object) -> Delta:
        if isinstance(content, str):
            content = [{"type": "text", "text": content}]
        if not isinstance(content, list | None):
            raise TypeError(content)
        return joined([self._begin(None, block) for block in content or ()])

    def _finish(self, told: Mapping[str, Any], usage: object) -> Delta:
        """Take how the message ended, and what it cost."""
        self._draft.usage = self._tokens.add(usage)
        reason = finish_reason(told.get("stop_reason"), "stop_reason", self._failures)
        if reason is None:
            return NOTHING
        refused = reason == FinishReason.FINISH_REASON_REFUSAL
        delta = self._explanation(told.get("stop_details")) if refused else NOTHING
        self._draft.finish = reason
        return delta

    def _explanation(self, details: object) -> Delta:
        """Take why the model refuses, unless it said something itself."""
        told = details.get("explanation") if isinstance(details, dict) else None
        spoke = any(one.part.kind is Text and one.part.content.tell() for one in self._blocks)
        return NOTHING if spoke or not isinstance(told, str) else Delta(self._draft.text(told))

    def _close(self) -> None:
        """End the message; one without a stop reason is whole if its calls are."""
        told = self._draft.finish is not None
        if not told and self._draft.begun and all(block.is_whole() for block in self._blocks):
            self._draft.finish = FinishReason.FINISH_REASON_STOP
        self.over = True

    def _settle(self) -> None:
        for block in self._blocks:
            block.settle()

    def _unknown(self, kind: object, event: dict[str, Any]) -> None:
        """Take an error, and skip what is not known."""
        if error := event.get("error"):
            raise self._failures.told(error)
        if isinstance(kind, str) and kind.endswith("error"):
            raise self._failures.told(event)
        if "choices" in event:
            what = "it is a chat completion; the provider of this address is not anthropic"
            raise self._failures.malformed(what, retryable=False)


def _kind(event: Mapping[str, Any]) -> str:
    """Return the kind of an event that does not tell it; empty if that is not clear."""
    if "delta" in event:
        return "content_block_delta" if "index" in event else "message_delta"
    return next((kind for name, kind in _SHAPES if name in event), "")
