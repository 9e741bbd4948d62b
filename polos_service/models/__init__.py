"""The Model port: how the agent loop asks a language model."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from polos.v1.event_pb2 import Cost, FinishReason, ToolCall, Usage

Emit = Callable[[str], Awaitable[None]]
"""Takes a piece of text as soon as the model says it; never an empty one."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelRequest:
    """One call of a model.

    Attributes:
        model: the model's name.
        messages: the conversation in the form of the OpenAI chat API, system prompt first.
        tools: `{"name", "description", "parameters"}` of each tool the model may call.
        temperature: sampling temperature; None is the provider's default.
        max_output_tokens: bound on the answer; None is the provider's default.
        options: further parameters of the run, checked by `Model.check`.
        base_url: the agent's own provider address; None is the configured one.
        turn: which model call of the run this is, from 1.
        first_token: seconds until the model's first sign of life.
        token_gap: seconds between two signs of life.
        attempt: which attempt of the step this is, from 1.

    """

    model: str
    messages: Sequence[Mapping[str, Any]]
    tools: Sequence[Mapping[str, Any]] = ()
    temperature: float | None = None
    max_output_tokens: int | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    base_url: str | None = None
    turn: int = 1
    attempt: int = 1
    first_token: float = 120.0
    token_gap: float = 120.0


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelAnswer:
    """A whole answer of a model; a truncated one is a ModelError, never this.

    Attributes:
        text: all that was emitted, joined.
        tool_calls: what the model asks for, in its order, arguments unchecked.
        finish_reason: how the answer ended.
        usage: tokens; None if the provider told none.
        cost: None if it is unknown.
        extra: keys for the provider's own next turn (reasoning, say), added to the
            assistant message; kept in the private log, never served.

    """

    text: str
    tool_calls: Sequence[ToolCall] = ()
    finish_reason: FinishReason.ValueType
    usage: Usage | None = None
    cost: Cost | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)


class Model(Protocol):
    """A provider of models."""

    def check(self, options: Mapping[str, Any]) -> Mapping[str, str]:
        """Return what is wrong with a run's model options, by name; empty if nothing is."""
        ...

    async def answer(self, request: ModelRequest, emit: Emit) -> ModelAnswer:
        """Ask the model once, passing text to `emit` as it comes.

        Cancelling closes the connection to the provider.

        Raises:
            StepError: the call failed; reason, message and retryable say how.

        """
        ...

    async def close(self) -> None:
        """Close every connection."""
        ...
