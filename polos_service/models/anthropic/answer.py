"""The Messages API: the events of a streamed answer.

An answer is a list of content blocks. Each begins, grows by deltas, and ends; the message
itself does so around them. Servers that speak the API leave things out: the kind of an event
or a delta, the end of a block, the event after the last one. What an event says is taken from
what stands in it, as far as that is clear.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from io import StringIO
from typing import Any

import orjson

from polos.v1.event_pb2 import FinishReason, Usage
from polos_service.models.draft import NOTHING, Delta, Draft, Growing, usage_of
from polos_service.models.failures import Failures
from polos_service.models.messages import Call, Reasoning, Text

FINISH_REASONS = {
    "end_turn": FinishReason.FINISH_REASON_STOP,
    "stop_sequence": FinishReason.FINISH_REASON_STOP,
    "tool_use": FinishReason.FINISH_REASON_TOOL_CALLS,
    "max_tokens": FinishReason.FINISH_REASON_LENGTH,
    "model_context_window_exceeded": FinishReason.FINISH_REASON_LENGTH,
    # The provider's own tools reached a limit: the model would go on.
    "pause_turn": FinishReason.FINISH_REASON_LENGTH,
    "refusal": FinishReason.FINISH_REASON_REFUSAL,
    # What servers that translate another API leave as it is.
    "stop": FinishReason.FINISH_REASON_STOP,
    "tool_calls": FinishReason.FINISH_REASON_TOOL_CALLS,
    "length": FinishReason.FINISH_REASON_LENGTH,
    "content_filter": FinishReason.FINISH_REASON_CONTENT_FILTER,
}
"""By the provider's word; a word that is not here counts as not told."""

MAX_BLOCKS = 4096
"""Content blocks of one answer: each costs memory, however little is in it. An answer that
searches the web and cites what it found has some hundred."""

_SHAPES = (
    ("choices", ""),
    ("error", "error"),
    ("message", "message_start"),
    ("content_block", "content_block_start"),
    ("content", "message"),
    ("usage", "message_delta"),
)
"""The kind of an event that does not tell it, by a member that it has; the first one decides."""


@dataclass(slots=True)
class _Block:
    """A content block that grows.

    Attributes:
        part: the part of the answer that it becomes.
        given: the arguments of a call that stand in the block's beginning; fragments that
            follow take their place.
        opaque: a block of a kind that only the provider understands; else None.
        fragments: of the arguments in such a block.

    """

    part: Growing
    given: object = None
    opaque: dict[str, Any] | None = None
    fragments: StringIO = field(default_factory=StringIO)


class Events:
    """Reads the events of one answer.

    Attributes:
        over: True once the message ended.

    """

    def __init__(self, draft: Draft, failures: Failures) -> None:
        self.over = False
        self._draft = draft
        self._failures = failures
        self._blocks: dict[object, _Block] = {}
        self._begun = 0
        self._at: object = None
        self._texts: list[Growing] = []
        self._tokens: dict[str, int] = {}

    def take(self, data: bytes) -> Delta:
        """Take the data of an event, or a whole message.

        Raises:
            StepError: it reports an error, cannot be understood, or exceeds a bound.

        """
        try:
            return self._take(_parsed(data))
        except (ValueError, TypeError, AttributeError, LookupError, RecursionError) as error:
            # Whatever shape a server sends instead of an event: checking each level of each
            # event first would cost more than all the rest.
            what = _complaint(error)
        if data == b"[DONE]":
            self.over = True
        elif self._draft.finish is None:
            raise self._failures.malformed(what)
        return NOTHING

    def _take(self, event: dict[str, Any]) -> Delta:
        kind = event.get("type") or _kind(event)
        match kind:
            case "content_block_delta":
                return self._grow(event.get("index", self._at), event["delta"])
            case "content_block_start":
                return self._begin(event.get("index"), event["content_block"])
            case "message_start":
                return self._start(event["message"])
            case "message_delta":
                return self._finish(_mapping(event.get("delta")), event.get("usage"))
            case "message_stop":
                self._close()
            case "message":
                return self._whole(event)
            case _:
                self._unknown(kind, event)
        return NOTHING

    def _grow(self, index: object, delta: dict[str, Any]) -> Delta:
        """Add to a block. The kind of a delta is told by what stands in it."""
        if index != self._at:
            self._go_to(index)
        block = self._blocks.get(index)
        if block is not None and block.opaque is not None:
            self._grow_opaque(block, block.opaque, delta)
            return NOTHING
        if text := delta.get("text"):
            return Delta(self._draft.text(text))
        if thought := delta.get("thinking"):
            return Delta("", self._draft.reasoning(thought))
        if (fragment := delta.get("partial_json")) is not None:
            self._add_arguments(index, block, fragment)
        elif signature := delta.get("signature"):
            if block is None or block.part.kind is not Reasoning:
                self._begin(index, {"type": "thinking"})
            self._draft.keep("signature", signature)
        elif (citation := delta.get("citation")) and block is not None:
            self._draft.count_value(citation)
            block.part.state.setdefault("citations", []).append(citation)
        return NOTHING

    def _add_arguments(self, index: object, block: _Block | None, fragment: object) -> None:
        if block is None or block.part.kind is not Call:
            self._begin(index, {"type": "tool_use"})
            block = self._blocks[index]
        block.part.content.write(self._draft.count(_json_text(fragment)))

    def _grow_opaque(self, block: _Block, content: dict[str, Any], delta: dict[str, Any]) -> None:
        """Add to a block that only the provider understands: texts grow, all else is replaced."""
        for name, value in delta.items():
            if name == "partial_json":
                block.fragments.write(self._draft.count(_json_text(value)))
            elif isinstance(value, str) and isinstance(content.get(name), str) and name != "type":
                content[name] += self._draft.count(value)
            elif name != "type":
                self._draft.count_value(value)
                content[name] = value

    def _begin(self, index: object, told: dict[str, Any]) -> Delta:
        """Begin a block; what stands in it already is taken."""
        if self._begun == MAX_BLOCKS:
            raise self._failures.too_large(f"{MAX_BLOCKS} content blocks")
        self._end(index)
        self._begun += 1
        self._at = self._begun if index is None else index
        kind = told.get("type")
        if kind == "text":
            return self._begin_text(told)
        if kind == "thinking":
            return self._begin_thinking(told)
        if kind == "tool_use":
            self._begin_call(told)
            return NOTHING
        self._draft.count_value(told)
        self._blocks[self._at] = _Block(self._draft.begin(Reasoning), opaque=dict(told))
        return Delta("", "") if kind == "redacted_thinking" else NOTHING

    def _begin_text(self, told: dict[str, Any]) -> Delta:
        block = self._blocks[self._at] = _Block(self._draft.begin(Text))
        self._texts.append(block.part)
        self._keep(block, told, ("type", "text"))
        return Delta(self._draft.text(told.get("text") or ""))

    def _begin_thinking(self, told: dict[str, Any]) -> Delta:
        block = self._blocks[self._at] = _Block(self._draft.begin(Reasoning))
        self._keep(block, told, ("thinking",))
        return Delta("", self._draft.reasoning(told.get("thinking") or ""))

    def _begin_call(self, told: dict[str, Any]) -> None:
        block = self._blocks[self._at] = _Block(self._draft.call(), given=told.get("input"))
        block.part.id = self._draft.count(str(told.get("id") or ""))
        block.part.name = self._draft.count(str(told.get("name") or ""))
        self._keep(block, told, ("type", "id", "name", "input"))

    def _keep(self, block: _Block, told: Mapping[str, Any], known: Iterable[str]) -> None:
        """Keep what of a block's beginning has no place in the part: it goes back as it came."""
        kept = {name: value for name, value in told.items() if value and name not in known}
        if kept:
            self._draft.count_value(kept)
            block.part.state.update(kept)

    def _end(self, index: object) -> None:
        """End the block of this index, if there is one.

        What ends a block is another one of its index, or the end of the message: some servers
        add to a block that they said was over.
        """
        block = self._blocks.pop(index, None)
        if block is None:
            return
        if block.opaque is not None:
            block.part.state.update(_settled(block.opaque, block.fragments.getvalue()))
        elif block.given and not block.part.content.tell():
            block.part.content.write(self._draft.count(_json_text(block.given)))

    def _go_to(self, index: object) -> None:
        """Let what comes next add to the block of this index, if there is one."""
        self._at = index
        if index in self._blocks:
            self._draft.resume(self._blocks[index].part)
        else:
            self._draft.close_part()

    def _start(self, message: dict[str, Any]) -> Delta:
        # The output tokens that stand here are those of the first moment.
        self._count({**_mapping(message.get("usage")), "output_tokens": None})
        return self._content(message.get("content"))

    def _whole(self, message: dict[str, Any]) -> Delta:
        """Take a message that comes as a whole, not in a stream."""
        delta = self._content(message["content"])
        last = self._finish(message, message.get("usage"))
        self._close()
        return Delta(delta.text + last.text, delta.reasoning)

    def _content(self, content: object) -> Delta:
        blocks = [{"type": "text", "text": content}] if isinstance(content, str) else content or ()
        deltas = [self._begin(None, block) for block in blocks]
        thoughts = [delta.reasoning for delta in deltas if delta.reasoning is not None]
        text = "".join(delta.text for delta in deltas)
        return Delta(text, "".join(thoughts) if thoughts else None)

    def _finish(self, told: Mapping[str, Any], usage: object) -> Delta:
        """Take how the message ended, and what it cost."""
        self._count(_mapping(usage))
        reason = told.get("stop_reason")
        if not reason:
            return NOTHING
        word = reason.lower() if isinstance(reason, str) else ""
        self._draft.finish = FINISH_REASONS.get(word, FinishReason.FINISH_REASON_UNSPECIFIED)
        self._end_all()
        explanation = _mapping(told.get("stop_details")).get("explanation")
        if word == "refusal" and isinstance(explanation, str) and not self._has_text():
            return Delta(self._draft.text(explanation))
        return NOTHING

    def _close(self) -> None:
        """End the message; one without a stop reason is whole if its calls are."""
        self._end_all()
        said = self._draft.begun and all(map(_is_whole, self._draft.calls))
        if self._draft.finish is None and said:
            self._draft.finish = FinishReason.FINISH_REASON_STOP
        self.over = True

    def _has_text(self) -> bool:
        return any(part.content.tell() for part in self._texts)

    def _end_all(self) -> None:
        for index in list(self._blocks):
            self._end(index)

    def _unknown(self, kind: object, event: dict[str, Any]) -> None:
        """Take an error, and skip what is not known."""
        if self._draft.finish is not None:
            return
        if error := event.get("error"):
            raise self._failures.told(error)
        if isinstance(kind, str) and kind.endswith("error"):
            raise self._failures.told(event)
        if "choices" in event:
            what = "it is a chat completion; the provider of this address is not anthropic"
            raise self._failures.malformed(what, retryable=False)

    def _count(self, told: Mapping[str, Any]) -> None:
        """Take the tokens so far. They only grow; some servers tell 0 where they tell nothing."""
        for name, count in told.items():
            if type(count) is int:
                self._tokens[name] = max(count, self._tokens.get(name, 0))
        if details := _mapping(told.get("output_tokens_details")):
            self._count(details)
        self._draft.usage = self._usage()

    def _usage(self) -> Usage | None:
        """Return the tokens: those of the cache are no part of the provider's input tokens."""
        tokens = self._tokens
        cached, written = (tokens.get(f"cache_{how}_input_tokens") for how in ("read", "creation"))
        read = tokens.get("input_tokens")
        return usage_of(
            None if read is None else read + (cached or 0) + (written or 0),
            tokens.get("output_tokens"),
            cached=cached,
            cache_written=written,
            reasoning=tokens.get("thinking_tokens"),
        )


def _kind(event: Mapping[str, Any]) -> str:
    """Return the kind of an event that does not tell it; empty if that is not clear."""
    if "delta" in event:
        return "content_block_delta" if "index" in event else "message_delta"
    return next((kind for name, kind in _SHAPES if name in event), "")


def _settled(content: dict[str, Any], fragments: str) -> dict[str, Any]:
    """Return an opaque block with its arguments; nothing if it is cut: it cannot go back."""
    if not fragments:
        return content
    try:
        return {**content, "input": orjson.loads(fragments)}
    except ValueError:
        return {}


def _is_whole(call: Growing) -> bool:
    """Return whether the arguments of a call are complete; none are."""
    try:
        orjson.loads(call.content.getvalue() or "{}")
    except ValueError:
        return False
    return True


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _complaint(error: Exception) -> str:
    """Return what is wrong with an event."""
    if isinstance(error, KeyError):
        return f"an event has no {error.args[0]!r}"
    if isinstance(error, ValueError):
        return "an event is not valid JSON"
    return "an event does not have the form that the Messages API gives it"


def _json_text(value: object) -> str:
    """Return a fragment of JSON text; some servers send the value that it stands for."""
    return value if isinstance(value, str) else orjson.dumps(value).decode()


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
