"""What a run is started with, pinned: a resumed run uses this, whatever the code says by then."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from pydantic import BaseModel

from polos.v1.error_pb2 import FailureReason
from polos.v1.event_pb2 import AgentStart
from polos_client.define.agent import Agent
from polos_client.define.stop import StopCondition, restore
from polos_service.errors import StepError
from polos_service.models.messages import Message, Text
from polos_service.models.openai.form import messages_of
from polos_service.runs.pinned import unpinned
from polos_service.runs.runnable import RunRequest

KIND: Literal["agent"] = "agent"
"""The kind of an agent's definition."""

VERSION: Literal[1] = 1
"""The version of its format: a further one where this code's reading of it would be wrong."""


class PinnedTool(BaseModel):
    """A tool as the model sees it; its code is the loaded agent's, found by name."""

    name: str
    description: str
    parameters: dict[str, Any]


class PinnedStop(BaseModel):
    """A stop condition; the code of one that is not built in is the loaded agent's."""

    name: str
    config: dict[str, Any] | None


class PinnedDeadlines(BaseModel):
    """Seconds that the parts of a run may take; that of the run stands in its record."""

    first_token: float
    token_gap: float
    tool_call: float


class Definition(BaseModel):
    """A run's definition. Private: it is stored beside the log and never served.

    Version 0.1.0 wrote it without `kind` and `v`, and passes over members that it does not know.
    """

    kind: Literal["agent"] = KIND
    v: Literal[1] = VERSION
    agent_id: str
    provider: str
    model: str
    system_prompt: str | None
    base_url: str | None
    api: str | None = None
    settings: dict[str, Any] = {}
    tools: list[PinnedTool]
    temperature: float | None
    max_output_tokens: int | None
    stop_conditions: list[PinnedStop]
    deadlines: PinnedDeadlines
    messages: list[dict[str, Any]]
    options: dict[str, Any]
    initial_state: dict[str, Any]
    session_id: str | None
    user_id: str | None
    streaming: bool

    @classmethod
    def pin(cls, agent: Agent, request: RunRequest) -> Definition:
        """Return the definition of a run of this agent as it is now."""
        deadlines = request.deadlines.over(agent.deadlines)
        return cls(
            agent_id=agent.id,
            provider=agent.provider,
            model=agent.model,
            system_prompt=agent.system_prompt,
            base_url=agent.provider_base_url,
            api=agent.provider_llm_api,
            settings=agent.provider_kwargs,
            tools=[
                PinnedTool(name=tool.id, description=tool.description, parameters=tool.parameters)
                for tool in agent.tools
            ],
            temperature=agent.temperature,
            max_output_tokens=agent.max_output_tokens,
            stop_conditions=[
                PinnedStop(name=stop.name, config=stop.config) for stop in agent.stop_conditions
            ],
            deadlines=PinnedDeadlines.model_validate(deadlines, from_attributes=True),
            messages=request.payload,
            options=dict(request.model_options),
            initial_state=dict(request.initial_state),
            session_id=request.session_id,
            user_id=request.user_id,
            streaming=request.streaming,
        )

    @classmethod
    def unpin(cls, pinned: bytes) -> Definition:
        """Return the definition that was stored, by this version or an earlier one.

        Raises:
            Unable: it is of another kind, or a newer version.
            ValueError: it is damaged.

        """
        return cls.model_validate(unpinned(pinned, KIND, VERSION))

    def started(self) -> AgentStart:
        """Return the event that a run begins with; prompts and addresses are not in it."""
        return AgentStart(
            agent_id=self.agent_id,
            provider=self.provider,
            model=shown(self.provider, self.model),
            tools=[tool.name for tool in self.tools],
            temperature=self.temperature,
            max_output_tokens=self.max_output_tokens,
            stop_conditions=[stop.name for stop in self.stop_conditions],
            streaming=self.streaming,
        )

    def conversation(self) -> list[Message]:
        """Return the messages of the first model call."""
        prompt = self.system_prompt
        system = [Message(role="system", parts=(Text(text=prompt),))] if prompt else []
        return [*system, *messages_of(self.messages, self.provider)]

    def restore_stops(self, loaded: Sequence[StopCondition]) -> list[StopCondition]:
        """Return the stop conditions; the code of custom ones is among those loaded.

        Raises:
            StepError: one is no longer loaded.

        """
        try:
            return [restore(stop.name, stop.config, loaded) for stop in self.stop_conditions]
        except LookupError as error:
            raise StepError(FailureReason.FAILURE_REASON_CODE_MISSING, str(error)) from error


def shown(provider: str, model: str) -> str:
    """Return the model's name for readers: a script is a whole play, and no name."""
    return "script" if provider == "scripted" else model
