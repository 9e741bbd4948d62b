"""What the events of a step tell before its end: what a model says, in pieces or whole."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from io import StringIO

from polos.v1.event_pb2 import Event, StepFinish, ToolCall


@dataclass(frozen=True, kw_only=True, slots=True)
class Said:
    """What the events of one attempt tell of a model's answer.

    Attributes:
        text: that of its `text_delta` events, joined.
        reasoning: that of its `reasoning_delta` events, joined.
        calls: those of its `tool_call` events, with their arguments, however long.

    """

    text: str = ""
    reasoning: str = ""
    calls: Sequence[ToolCall] = ()


NOTHING = Said()
"""What a step has said whose output holds everything."""


@dataclass(slots=True, eq=False)
class Saying:
    """The fold of the events that one attempt of a step emits before its end."""

    text: StringIO = field(default_factory=StringIO)
    reasoning: StringIO = field(default_factory=StringIO)
    calls: list[ToolCall] = field(default_factory=list)
    arguments: dict[int, StringIO] = field(default_factory=dict)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Saying) and self.whole() == other.whole()

    __hash__ = None  # type: ignore[assignment]  # it grows

    def add(self, kind: str, event: Event) -> None:
        """Take an event of one of the kinds in SAYS into account."""
        match kind:
            case "text_delta":
                self.text.write(event.text_delta.content)
            case "reasoning_delta":
                self.reasoning.write(event.reasoning_delta.content)
            case "tool_call_delta":
                piece = event.tool_call_delta
                self.arguments.setdefault(piece.call, StringIO()).write(piece.content)
            case "tool_call":
                self.calls.append(own(event.tool_call.tool_call))

    def needed(self, finish: StepFinish) -> Saying | None:
        """Return what the end of the step does not tell; None if it tells everything."""
        if finish.HasField("long_answer"):
            return self
        return Saying(reasoning=self.reasoning) if self.reasoning.tell() else None

    def whole(self) -> Said:
        """Return all that was said."""
        calls = [own(call) for call in self.calls]
        for call in calls:
            if call.HasField("long_arguments"):
                call.arguments_json = self.arguments[call.long_arguments.call].getvalue()
        return Said(
            text=self.text.getvalue(), reasoning=self.reasoning.getvalue(), calls=tuple(calls)
        )


SAYS = frozenset({"text_delta", "reasoning_delta", "tool_call", "tool_call_delta"})
"""The names of the payloads that tell what a model says."""


def own(call: ToolCall) -> ToolCall:
    """Return a copy: a message that is part of another one keeps all of it in memory."""
    copy = ToolCall()
    copy.CopyFrom(call)
    return copy


def pieces(text: str, limit: int) -> list[str]:
    """Return the text in pieces of at most `limit` bytes each."""
    if len(text) * 4 <= limit:  # no character has more bytes
        return [text] if text else []
    size = limit if text.isascii() else limit // 4
    return [text[at : at + size] for at in range(0, len(text), size)]


def size_of(text: str) -> int:
    """Return the bytes of a text, in UTF-8."""
    return len(text) if text.isascii() else len(text.encode())
