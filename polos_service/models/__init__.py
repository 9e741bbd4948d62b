"""The Model port: how the agent loop asks a language model."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from polos.v1.event_pb2 import Cost, FinishReason, Usage
from polos_service.models.messages import Call, Message, Part, calls_of, text_of
from polos_service.models.output import OutputFormat


class Output(Protocol):
    """Takes an answer while the model says it.

    Each method waits while more is queued than may be. A provider does not read on meanwhile.
    """

    async def text(self, piece: str) -> None:
        """Take a piece of the text; never an empty one."""
        ...

    async def reasoning(self, piece: str) -> None:
        """Take a piece of the reasoning; empty if the provider only tells that there is some."""
        ...


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelRequest:
    """One call of a model.

    Attributes:
        model: the model's name.
        messages: the conversation, system prompt first.
        tools: `{"name", "description", "parameters"}` of each tool the model may call.
        temperature: sampling temperature; None is the provider's default.
        max_output_tokens: bound on the answer; None is the provider's default.
        options: further parameters of the run, checked by `Model.check`.
        settings: further parameters of the agent, in the provider's own words; those of the
            run come before them.
        base_url: the agent's own provider address; None is the configured one.
        api: which of the provider's APIs is to be used; None is its default.
        output: the form that the answer is to have; None: text. The agent loop validates the
            answer, whatever the provider makes of it.
        turn: which model call of the run this is, from 1.
        first_token: seconds until the model's first sign of life.
        token_gap: seconds between two signs of life.
        attempt: which attempt of the step this is, from 1.
        agent_id: the agent that asks.

    """

    model: str
    messages: Sequence[Message]
    tools: Sequence[Mapping[str, Any]] = ()
    temperature: float | None = None
    max_output_tokens: int | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)
    base_url: str | None = None
    api: str | None = None
    output: OutputFormat | None = None
    turn: int = 1
    attempt: int = 1
    first_token: float = 120.0
    token_gap: float = 120.0
    agent_id: str = ""


TOOL_OPTIONS = ("parallel_tool_calls", "tool_choice", "tools")
"""Parameters that say something of tools, and are refused where there are none."""


def without_tools(request: ModelRequest) -> ModelRequest:
    """Return a request in which the model may call nothing, not even tools of its provider."""

    def kept(chosen: Mapping[str, Any]) -> dict[str, Any]:
        return {name: value for name, value in chosen.items() if name not in TOOL_OPTIONS}

    return replace(
        request, tools=(), options=kept(request.options), settings=kept(request.settings)
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelAnswer:
    """A whole answer of a model; a truncated one is a ModelError, never this.

    Attributes:
        parts: texts, reasoning and calls in the model's order; the arguments of calls are
            unchecked.
        state: by provider, what goes back to it with the message; kept in the private log,
            never served, as is the state of the parts.
        finish_reason: how the answer ended.
        usage: tokens; None if the provider told none.
        cost: None if it is unknown.

    """

    parts: Sequence[Part]
    state: Mapping[str, Any] = field(default_factory=dict)
    finish_reason: FinishReason.ValueType
    usage: Usage | None = None
    cost: Cost | None = None

    @property
    def text(self) -> str:
        """All texts, joined."""
        return text_of(self.parts)

    @property
    def calls(self) -> list[Call]:
        """What the model asks for, in its order."""
        return calls_of(self.parts)

    @property
    def asks(self) -> bool:
        """Whether tools are to be called; the calls of an answer that was cut are not."""
        return self.finish_reason == FinishReason.FINISH_REASON_TOOL_CALLS

    def message(self) -> Message:
        """Return it as a message of the conversation."""
        return Message(role="assistant", parts=tuple(self.parts), state=self.state)


class Model(Protocol):
    """A provider of models. A class that derives from it inherits the defaults."""

    @property
    def apis(self) -> Collection[str]:
        """The APIs that an agent may choose; empty, as by default, if there is no choice."""
        return ()

    def lacks(self, base_url: str | None) -> str:  # noqa: ARG002 - a default
        """Return what calls of an agent with this base URL lack; empty, as by default: nothing.

        It is told when the agent is loaded, as `OPENAI_API_KEY is not set`.
        """
        return ""

    def refuses(self, base_url: str | None) -> str:  # noqa: ARG002 - a default
        """Return why an agent with this base URL cannot be loaded; empty, as by default, if it can.

        It is the end of a sentence. `ProviderConfig.allowed` says which addresses calls may go to.
        """
        return ""

    def priced(self, model: str, base_url: str | None) -> bool:  # noqa: ARG002 - a default
        """Return whether the answers of a model tell their cost; by default they do not.

        A run with a budget of cost calls no model whose answers do not tell it.
        """
        return False

    def check(self, options: Mapping[str, Any], api: str | None = None) -> Mapping[str, str]:
        """Return what is wrong with a run's model options, by name; empty if nothing is."""
        ...

    async def answer(self, request: ModelRequest, output: Output) -> ModelAnswer:
        """Ask the model once, passing text and reasoning to `output` as they come.

        Cancelling closes the connection to the provider.

        Raises:
            StepError: the call failed; reason, message and retryable say how.

        """
        ...

    async def close(self) -> None:
        """Close every connection."""
        ...
