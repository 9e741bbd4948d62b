"""A model's answer while it grows, whichever provider it comes from. Its size is bounded."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from io import StringIO
from typing import Any, NamedTuple, Protocol

import orjson

from polos.v1.event_pb2 import Cost, FinishReason, Usage
from polos_service.limits import CALLS_LIMIT, ID_LIMIT
from polos_service.models import ModelAnswer
from polos_service.models.failures import Failures
from polos_service.models.halves import has_half, whole
from polos_service.models.lenient import writable
from polos_service.models.messages import STATELESS, Call, Part, Reasoning, Text
from polos_service.models.state import merge, settled

MAX_ANSWER_BYTES = 8 * 1024 * 1024
"""Bytes of text, reasoning, tool calls and provider state of one answer together, as they come."""

MAX_PARTS = 10_000
"""Parts of one answer: texts, reasoning and calls take turns at most so often."""

LONG_BYTES = 256 * 1024
"""Bytes of an answer from which on it is made in a thread: arguments are parsed for it."""

NEST_BYTES = 32
"""Bytes that an object or a list of state counts in addition: in memory it takes more."""

VOIDING = (
    FinishReason.FINISH_REASON_LENGTH,
    FinishReason.FINISH_REASON_CONTENT_FILTER,
    FinishReason.FINISH_REASON_REFUSAL,
)
"""Ends after which the calls of an answer are not whole, and must not be made."""


class Delta(NamedTuple):
    """What an event of a provider adds to the answer, for readers.

    Attributes:
        text: a piece of the text; empty if there is none.
        reasoning: a piece of the reasoning; empty if the provider only tells that there is
            some, None if there is none.

    """

    text: str = ""
    reasoning: str | None = None


Pieces = tuple[str, str | None]
"""A Delta, or a tuple like one: of an ordinary token, which is made faster."""

NOTHING = Delta()
"""An event that adds nothing for readers."""


def joined(deltas: Iterable[Pieces]) -> Delta:
    """Return what several events add for readers."""
    texts, thoughts = [], []
    for text, reasoning in deltas:
        texts.append(text)
        if reasoning is not None:
            thoughts.append(reasoning)
    return Delta("".join(texts), "".join(thoughts) if thoughts else None)


class Reader(Protocol):
    """Reads the events of one answer into a draft.

    Attributes:
        over: True once an event said that nothing follows.

    """

    over: bool

    def take(self, data: bytes) -> Pieces:
        """Take the data of an event; return what it adds for readers.

        Raises:
            StepError: it reports an error, cannot be understood, or exceeds a bound.

        """
        ...


@dataclass(slots=True, eq=False)
class Growing:
    """A part that grows.

    Attributes:
        kind: the class of the part.
        content: text, reasoning, or the arguments of a call.
        id: of a call; may be empty.
        name: of a call.
        state: what goes back to the provider with it.

    """

    kind: type[Text | Reasoning | Call]
    content: StringIO = field(default_factory=StringIO)
    id: str = ""
    name: str = ""
    state: dict[str, Any] = field(default_factory=dict)

    @property
    def says(self) -> bool:
        """Whether it is more than a text without words."""
        return self.kind is not Text or self.content.tell() > 0 or bool(self.state)


class Draft:
    """One answer, growing.

    Attributes:
        finish: how it ended; None as long as it has not.
        usage: tokens; None until the provider tells them.
        state: what goes back to the provider with the message. Fill it with `merge`.
        calls: the calls so far, in their order.
        before_answer: called once each before the answer is made; may change the calls and
            `finish`, and may raise StepError.

    """

    def __init__(self, failures: Failures, provider: str) -> None:
        self.usage: Usage | None = None
        self.state: dict[str, Any] = {}
        self.calls: list[Growing] = []
        self.before_answer: list[Callable[[], None]] = []
        self._finish: FinishReason.ValueType | None = None
        self._failures = failures
        self._provider = provider
        self._parts: list[Growing] = []
        self._open: Growing | None = None
        self._kind: type[Text | Reasoning | Call] | None = None
        self._write: Callable[[str], object] = str
        self._size = 0
        self._size_at_finish = 0
        self._half = ""

    @property
    def begun(self) -> bool:
        """Whether the model has said anything."""
        return self._size > 0

    @property
    def long(self) -> bool:
        """Whether making the answer takes longer than others are to wait."""
        return self._size > LONG_BYTES

    @property
    def finish(self) -> FinishReason.ValueType | None:
        """How the answer ended; None as long as it has not."""
        return self._finish

    @finish.setter
    def finish(self, reason: FinishReason.ValueType) -> None:
        self._finish = reason
        self._size_at_finish = self._size

    @property
    def whole(self) -> bool:
        """Whether it has ended, and nothing was added since."""
        return self._finish is not None and self._size == self._size_at_finish

    def has(self, kind: type[Text | Reasoning | Call]) -> bool:
        """Return whether it has a part of this kind."""
        return any(part.kind is kind for part in self._parts)

    def rest(self, kind: type[Text | Reasoning | Call], told: str) -> str | None:
        """Return what follows in `told` on all text of this kind; None if it begins otherwise."""
        parts = [part.content for part in self._parts if part.kind is kind]
        if sum(part.tell() for part in parts) > len(told):
            return None
        said = "".join(part.getvalue() for part in parts)
        return told[len(said) :] if told.startswith(said) else None

    @property
    def ended_at(self) -> int:
        """How much had been said when it ended; 0 as long as it has not."""
        return self._size_at_finish

    def text(self, piece: str) -> str:
        """Add text; return what readers get of it now."""
        if self._kind is Text and piece.isascii() and not self._half:
            self._grow(len(piece))
            self._write(piece)
            return piece
        if piece and (self._half or has_half(piece)):
            piece = self._joined(piece)
        if piece:
            self._at(Text)(self.count(piece))
        return piece

    def reasoning(self, piece: str, state: Mapping[str, Any] = STATELESS) -> str:
        """Add reasoning; return what readers get of it now. A part that it begins has the state."""
        if self._kind is Reasoning and piece.isascii():
            self._grow(len(piece))
            self._write(piece)
            return piece
        piece = whole(piece)
        self._at(Reasoning, state)(self.count(piece))
        return piece

    def keep(self, name: str, value: Any) -> None:
        """Set in the state of the part that grows, for which there must be one."""
        assert self._open is not None  # noqa: S101 - a defect of the reader
        if self._open.state.get(name) != value:
            self.count_value(value)
            self._open.state[name] = writable(value)

    def merge(self, state: dict[str, Any], told: Mapping[str, Any]) -> None:
        """Add a fragment of state to a state of this answer: texts and lists are continued."""
        value = writable(told)
        if value is not None:
            self.count_value(value)
            merge(state, value)

    def close_part(self) -> None:
        """Let whatever comes next begin a part of its own."""
        self._open = self._kind = None

    def begin(self, kind: type[Text | Reasoning | Call]) -> Growing:
        """Begin a part and return it; text or reasoning that comes next adds to it."""
        if len(self._parts) == MAX_PARTS:
            raise self._failures.too_large(f"{MAX_PARTS} parts")
        part = Growing(kind)
        self._parts.append(part)
        self.resume(part)
        return part

    def resume(self, part: Growing) -> None:
        """Let text or reasoning that comes next add to a part that began before."""
        self._open, self._kind, self._write = part, part.kind, part.content.write

    def arrange(self, parts: Sequence[Growing]) -> None:
        """Put all parts into another order."""
        self._parts = list(parts)
        self.calls = [part for part in parts if part.kind is Call]

    def call(self) -> Growing:
        """Begin another call and return it."""
        if len(self.calls) == CALLS_LIMIT:
            raise self._failures.too_large(f"{CALLS_LIMIT} tool calls")
        call = self.begin(Call)
        self.calls.append(call)
        return call

    def drop(self, call: Growing) -> None:
        """Forget a call."""
        self.calls.remove(call)
        self._parts.remove(call)

    def count(self, text: str) -> str:
        """Count text towards the bound and return it.

        Raises:
            StepError: the answer exceeds MAX_ANSWER_BYTES.

        """
        self._grow(len(text) if text.isascii() else len(text.encode(errors="surrogatepass")))
        return text

    def _grow(self, size: int) -> None:
        self._size += size
        if self._size > MAX_ANSWER_BYTES:
            raise self._failures.too_large(f"{MAX_ANSWER_BYTES} bytes")

    def count_value(self, value: Any) -> None:
        """Count a JSON value towards the bound: its bytes, and what its objects and lists take."""
        written = orjson.dumps(writable(value))
        nested = written.count(b"{") + written.count(b"[")
        self._grow(len(written) + NEST_BYTES * nested)

    def answer(self, cost: Cost | None) -> ModelAnswer:
        """Return the whole answer.

        Raises:
            StepError: it has no finish reason, or a tool call without a name.

        """
        if self.finish is None:
            raise self._failures.cut_short()
        for act in self.before_answer:
            act()
        reason = self._finish_reason(self.finish)
        asked = reason == FinishReason.FINISH_REASON_TOOL_CALLS
        parts = [one for one in self._parts if (asked if one.kind is Call else one.says)]
        ids: set[str] = set()
        state = settled(self.state)
        return ModelAnswer(
            parts=[self._part(one, ids) for one in parts],
            state={self._provider: state} if state else {},
            finish_reason=reason,
            usage=self.usage,
            cost=cost,
        )

    def _at(
        self, kind: type[Text | Reasoning], state: Mapping[str, Any] = STATELESS
    ) -> Callable[[str], object]:
        """Return what writes to the open part of this kind; begin one if there is none."""
        if self._kind is not kind:
            self.begin(kind)
            for name, value in state.items():
                self.keep(name, value)
        return self._write

    def _joined(self, text: str) -> str:
        """Put half of a surrogate pair that ended the text before in front, and keep one back."""
        text = self._half + text
        self._half = text[-1] if "\ud800" <= text[-1] <= "\udbff" else ""
        return whole(text.removesuffix(self._half))

    def _finish_reason(self, told: FinishReason.ValueType) -> FinishReason.ValueType:
        # What the answer holds decides, not the word: servers say "stop" though they ask for
        # tools, "tool_calls" and ask for none, or a word of their own.
        if self.calls and told not in VOIDING:
            return FinishReason.FINISH_REASON_TOOL_CALLS
        if not self.calls and told == FinishReason.FINISH_REASON_TOOL_CALLS:
            return FinishReason.FINISH_REASON_STOP
        return told

    def _part(self, one: Growing, ids: set[str]) -> Part:
        """Return a part; `ids` are those of the calls before it."""
        state = {self._provider: settled(one.state)} if one.state else {}
        content = whole(one.content.getvalue())
        if one.kind is Text:
            return Text(text=content, state=state)
        if one.kind is Reasoning:
            return Reasoning(text=content, state=state)
        if not one.name:
            raise self._failures.malformed("a tool call has no name")
        # A provider only compares the ids that it gets: one of ours does as well.
        usable = 0 < len(one.id) <= ID_LIMIT and one.id.isascii() and one.id.isprintable()
        own = not usable or one.id in ids or self._failures.tells(one.id)
        ids.add(one.id)
        return Call(
            id=f"call_{uuid.uuid4().hex}" if own else one.id,
            name=whole(one.name),
            arguments_json=content or "{}",
            state=state,
        )
