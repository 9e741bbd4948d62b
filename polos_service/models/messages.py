"""A conversation in a form of its own, which each provider translates into its own.

A message has parts. A provider may attach state to a message or a part: JSON values that only
it understands (signed reasoning, thought signatures, fields that it wants back). The state is
kept by the provider's name, goes back to that provider unchanged, and is never served.

Stored, a conversation is `{"v": 1, "messages": [..]}`, a message `{"role": .., "parts": [..]}`,
and a part the JSON object of its attributes. An attribute that has its default is left out, and
a text without state is a JSON string.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, ClassVar, Literal

from polos_service.errors import Unable

VERSION = 1
"""The version of the stored form."""

VERSION_SHOWN = 80
"""Characters of an unknown version that a message shows at most."""

Role = Literal["system", "developer", "user", "assistant", "tool"]
"""Who speaks. A message of `tool` has results of tools, and nothing else."""

STATELESS: Mapping[str, Any] = {}
"""The state of most parts: one object for all of them. Nothing may change it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Stateful:
    # Slots, and one empty state for all: a request can hold tens of thousands of messages.
    state: Mapping[str, Any] = field(default_factory=lambda: STATELESS)


@dataclass(frozen=True, kw_only=True, slots=True)
class Text(_Stateful):
    """What is said.

    Attributes:
        text: the words; may be empty.
        state: by provider, what goes back to it unchanged.

    """

    type: ClassVar[Literal["text"]] = "text"
    text: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Media(_Stateful):
    """An image or another file, by its address, by its content, or by the provider's id of it.

    Attributes:
        type: `image`, or `file` for all else: documents, audio, video.
        url: an http(s) address that the provider fetches; None if there is none.
        data: the content in base64; None if there is none.
        media_type: `image/png`, for example; `audio/*` or `video/*` if only the kind is known,
            empty if nothing is.
        name: of the file; empty if it has none.
        detail: how closely the model looks at an image, in OpenAI's words: `low`, `high`, ...;
            empty for the provider's default.
        state: by provider, what goes back to it unchanged; `file_id` is the provider's id of
            the file.

    """

    type: Literal["image", "file"]
    url: str | None = None
    data: str | None = None
    media_type: str = ""
    name: str = ""
    detail: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Call(_Stateful):
    """A call of a tool that the model asks for.

    Attributes:
        id: what the result refers to.
        name: the tool.
        arguments_json: JSON text as the model wrote it; may not be valid JSON.
        state: by provider, what goes back to it unchanged.

    """

    type: ClassVar[Literal["call"]] = "call"
    id: str
    name: str
    arguments_json: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Result(_Stateful):
    """The result of a call of a tool.

    Attributes:
        call_id: the call.
        content: what the model is told.
        failed: whether that is an error.
        state: by provider, what goes back to it unchanged.

    """

    type: ClassVar[Literal["result"]] = "result"
    call_id: str
    content: tuple[Text | Media, ...]
    failed: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class Reasoning(_Stateful):
    """What a model thought before it answered.

    Attributes:
        text: as far as the provider shows it; may be empty.
        state: by provider, what goes back to it unchanged: its signature, for example.

    """

    type: ClassVar[Literal["reasoning"]] = "reasoning"
    text: str = ""


Part = Text | Media | Call | Result | Reasoning


@dataclass(frozen=True, kw_only=True, slots=True)
class Message(_Stateful):
    """One turn of a conversation.

    Attributes:
        role: who speaks.
        parts: what they say, in order.
        state: by provider, what goes back to it unchanged.

    """

    role: Role
    parts: tuple[Part, ...]

    @property
    def text(self) -> str:
        """All texts in it, joined."""
        return text_of(self.parts)


def text_of(parts: Iterable[Part]) -> str:
    """Return the texts among the parts, joined."""
    return "".join(part.text for part in parts if isinstance(part, Text))


def reasoning_of(parts: Iterable[Part]) -> str:
    """Return the texts of the reasoning among the parts, joined."""
    return "".join(part.text for part in parts if isinstance(part, Reasoning))


def calls_of(parts: Iterable[Part]) -> list[Call]:
    """Return the calls among the parts, in order."""
    return [part for part in parts if isinstance(part, Call)]


def dump(messages: Sequence[Message]) -> dict[str, Any]:
    """Return a conversation as JSON values, in its stored form."""
    return {"v": VERSION, "messages": [_stored(message) for message in messages]}


def load(stored: Mapping[str, Any]) -> list[Message]:
    """Return the conversation that `dump` returned the stored form of.

    Raises:
        Unable: it is of a newer version.
        ValueError: it is damaged.

    """
    if (version := stored.get("v")) != VERSION:
        raise Unable(
            f"Its conversation has the version {version!s:.{VERSION_SHOWN}}. This process reads "
            f"version {VERSION}: serve the run with the version of polos-grpc that it was "
            "started with, or cancel it.",
            version=f"{version!s:.{VERSION_SHOWN}}",
            reads=f"conversation {VERSION}",
        )
    try:
        return [_message(message) for message in stored["messages"]]
    except (AttributeError, LookupError, TypeError) as error:
        raise ValueError(f"The stored conversation is damaged: {error!r:.200}") from error


def _stored(message: Message) -> dict[str, Any]:
    made: dict[str, Any] = {
        "role": message.role,
        "parts": [_stored_part(part) for part in message.parts],
    }
    return made | {"state": message.state} if message.state else made


def _stored_part(part: Part) -> str | dict[str, Any]:
    if isinstance(part, Text) and not part.state:
        return part.text
    made: dict[str, Any] = {"type": part.type}
    for one in fields(part):
        value = getattr(part, one.name)
        if value != (STATELESS if one.name == "state" else one.default):
            made[one.name] = value
    if isinstance(part, Result):
        made["content"] = [_stored_part(content) for content in part.content]
    return made


_CLASSES: Mapping[str, type[Text | Media | Call | Result | Reasoning]] = {
    "text": Text,
    "image": Media,
    "file": Media,
    "call": Call,
    "result": Result,
    "reasoning": Reasoning,
}


def _message(stored: Mapping[str, Any]) -> Message:
    parts = tuple(map(_part, stored["parts"]))
    return Message(**{**stored, "parts": parts})


def _part(stored: str | Mapping[str, Any]) -> Any:
    if isinstance(stored, str):
        return Text(text=stored)
    kind = _CLASSES[stored["type"]]
    made = {name: value for name, value in stored.items() if name != "type" or kind is Media}
    if kind is Result:
        made["content"] = tuple(map(_part, stored["content"]))
    return kind(**made)
