"""Scripts for the provider "scripted": a model that says what a test wants it to.

    Agent("demo", "scripted", script(turn(call("add", a=1, b=2)), "The sum is 3."))

A script travels as the agent's model, so a run keeps the one it was started with.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from polos.v1.error_pb2 import FailureReason
from polos_client.errors import DefinitionError


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Say(_Part):
    """The model says text.

    Attributes:
        kind: tells parts apart.
        chunks: the text, in the pieces in which it comes; none is empty.

    """

    kind: Literal["say"] = "say"
    chunks: tuple[Annotated[str, Field(min_length=1)], ...]


class Call(_Part):
    """The model asks for a tool.

    Attributes:
        kind: tells parts apart.
        name: the tool.
        arguments_json: the arguments as the model writes them; need not be valid JSON.

    """

    kind: Literal["call"] = "call"
    name: str
    arguments_json: str


class Fail(_Part):
    """The provider fails here.

    Attributes:
        kind: tells parts apart.
        reason: a `polos.v1.FailureReason` in lower case without its prefix.
        message: what happened, in a sentence.
        retryable: True where the same call may succeed later.

    """

    kind: Literal["fail"] = "fail"
    reason: str
    message: str
    retryable: bool

    def failure_reason(self) -> FailureReason.ValueType:
        """Return the reason as the enum's value."""
        return FailureReason.Value(f"FAILURE_REASON_{self.reason.upper()}")


class Pause(_Part):
    """Nothing happens for a while.

    Attributes:
        kind: tells parts apart.
        seconds: how long; None: until the call is cancelled.

    """

    kind: Literal["pause"] = "pause"
    seconds: Annotated[float, Field(ge=0)] | None = None


class Finish(_Part):
    """The answer ends here, for a given reason.

    Attributes:
        kind: tells parts apart.
        reason: a `polos.v1.FinishReason` in lower case without its prefix.

    """

    kind: Literal["finish"] = "finish"
    reason: Literal["stop", "length", "content_filter", "refusal", "tool_calls"]


class Cut(_Part):
    """The connection ends here, without a finish reason.

    Attributes:
        kind: tells parts apart.

    """

    kind: Literal["cut"] = "cut"


class Tokens(_Part):
    """The provider reports what the call used.

    Attributes:
        kind: tells parts apart.
        input_tokens: tokens read.
        output_tokens: tokens written.

    """

    kind: Literal["usage"] = "usage"
    input_tokens: Annotated[int, Field(ge=0, lt=2**30)]
    output_tokens: Annotated[int, Field(ge=0, lt=2**30)]


Part = Say | Call | Fail | Pause | Finish | Cut | Tokens
"""What a turn is made of, in order."""

_AnyPart = Annotated[Part, Field(discriminator="kind")]


class Turn(_Part):
    """One model call.

    Attributes:
        parts: what is played, in order.
        retried: what is played from the second attempt of the step on; None: the same.

    """

    parts: tuple[_AnyPart, ...]
    retried: tuple[_AnyPart, ...] | None = None

    def of_attempt(self, attempt: int) -> tuple[Part, ...]:
        """Return what the attempt plays; the first is 1."""
        return self.parts if attempt == 1 or self.retried is None else self.retried


class _Script(_Part):
    turns: tuple[Turn, ...]


def script(*turns: Turn | Part | str) -> str:
    """Return a script as text, for the `model` of an agent.

    Args:
        turns: what each model call of a run plays, in order; one call more fails.

    Raises:
        DefinitionError: one of them is neither a turn, nor a part, nor a text.

    """
    return _Script(turns=tuple(_turn(one) for one in turns)).model_dump_json(exclude_none=True)


def parse(text: str) -> list[Turn]:
    """Return the turns of what `script` made.

    Raises:
        DefinitionError: the text is not a script.

    """
    try:
        return list(_Script.model_validate_json(text).turns)
    except ValidationError as error:
        raise DefinitionError(
            f"the model {text[:80]!r} of provider 'scripted' is not a script; make one with "
            "polos.scripted.script(...)"
        ) from error


def turn(*parts: Part | str, retried: Sequence[Part | str] | None = None) -> Turn:
    """Return what one model call plays; a string is said.

    Args:
        parts: what is played, in order.
        retried: what is played instead from the second attempt of the step on.

    Raises:
        DefinitionError: one of them is neither a part nor a text.

    """
    again = None if retried is None else tuple(_part(one) for one in retried)
    return Turn(parts=tuple(_part(one) for one in parts), retried=again)


def say(text: str | Sequence[str]) -> Say:
    """Say a text word by word, or exactly in the pieces that are given."""
    chunks = _words(text) if isinstance(text, str) else text
    return Say(chunks=tuple(one for one in chunks if one))


def call(name: str, /, *, raw: str | None = None, **arguments: Any) -> Call:
    """Ask for a tool.

    Args:
        name: the tool.
        raw: the text of the arguments, instead of `arguments`; need not be valid JSON.
        arguments: the arguments, as JSON values.

    """
    return Call(name=name, arguments_json=json.dumps(arguments) if raw is None else raw)


def fail(
    reason: str = "model_unavailable",
    message: str = "the script fails here",
    retryable: bool = True,  # noqa: FBT001, FBT002 - reads well by name
) -> Fail:
    """Let the provider fail.

    Args:
        reason: a `polos.v1.FailureReason` in lower case without its prefix.
        message: what happened, in a sentence.
        retryable: True where the same call may succeed later.

    Raises:
        DefinitionError: there is no such reason.

    """
    if f"FAILURE_REASON_{reason.upper()}" not in FailureReason.keys():  # noqa: SIM118 - an enum, no dict
        raise DefinitionError(f"there is no failure reason {reason!r}; see polos/v1/error.proto")
    return Fail(reason=reason, message=message, retryable=retryable)


def pause(seconds: float | None = None) -> Pause:
    """Do nothing for `seconds`; None: until the call is cancelled."""
    return Pause(seconds=seconds)


def finish(reason: Literal["stop", "length", "content_filter", "refusal", "tool_calls"]) -> Finish:
    """End the answer for a given reason; default: tool_calls after a call, else stop."""
    return Finish(reason=reason)


def cut() -> Cut:
    """Let the connection end without a finish reason."""
    return Cut()


def usage(*, input_tokens: int = 0, output_tokens: int = 0) -> Tokens:
    """Report what the call used."""
    return Tokens(input_tokens=input_tokens, output_tokens=output_tokens)


def _turn(one: Turn | Part | str) -> Turn:
    return one if isinstance(one, Turn) else turn(one)


def _part(one: Part | str) -> Part:
    if not isinstance(one, str | Part):
        raise DefinitionError(f"{one!r:.80} must be a text, or a part such as scripted.call(...)")
    return say(one) if isinstance(one, str) else one


def _words(text: str) -> list[str]:
    """Split before each run of spaces, so that the pieces join to the text."""
    return re.findall(r"\s*\S+|\s+", text)
