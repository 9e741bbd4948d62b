"""A conversation in a form of its own, which each provider translates into its own.

A message has parts. A provider may attach state to a message or a part: JSON values that only
it understands (signed reasoning, thought signatures, fields that it wants back). The state is
kept by the provider's name, goes back to that provider unchanged, and is never served.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

Role = Literal["system", "developer", "user", "assistant", "tool"]
"""Who speaks. A message of `tool` has results of tools, and nothing else."""


class _Stateful(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    state: Mapping[str, Any] = Field(default_factory=dict)


class Text(_Stateful):
    """What is said.

    Attributes:
        text: the words; may be empty.
        state: by provider, what goes back to it unchanged.

    """

    type: Literal["text"] = "text"
    text: str


class Media(_Stateful):
    """An image or another file, by its address, by its content, or by the provider's id of it.

    Attributes:
        type: `image`, or `file` for all else: documents, audio.
        url: an http(s) address that the provider fetches; None if the content is given.
        data: the content in base64; None if an address is given.
        media_type: of the content, `image/png` say; empty if it is not known.
        name: of the file; empty if it has none.
        state: by provider, what goes back to it unchanged; an id of a file, say.

    """

    type: Literal["image", "file"]
    url: str | None = None
    data: str | None = None
    media_type: str = ""
    name: str = ""


class Call(_Stateful):
    """A call of a tool that the model asks for.

    Attributes:
        id: what the result refers to.
        name: the tool.
        arguments_json: JSON text as the model wrote it; may not be valid JSON.
        state: by provider, what goes back to it unchanged.

    """

    type: Literal["call"] = "call"
    id: str
    name: str
    arguments_json: str


class Result(_Stateful):
    """What a call of a tool came to.

    Attributes:
        call_id: the call.
        content: what the model is told.
        failed: whether that is an error.
        state: by provider, what goes back to it unchanged.

    """

    type: Literal["result"] = "result"
    call_id: str
    content: tuple[Annotated[Text | Media, Field(discriminator="type")], ...]
    failed: bool = False


class Reasoning(_Stateful):
    """What a model thought before it answered.

    Attributes:
        text: as far as the provider shows it; may be empty.
        state: by provider, what goes back to it unchanged: its signature, say.

    """

    type: Literal["reasoning"] = "reasoning"
    text: str = ""


Part = Annotated[Text | Media | Call | Result | Reasoning, Field(discriminator="type")]


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
        """What is said in it, joined."""
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
