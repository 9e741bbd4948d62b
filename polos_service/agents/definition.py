"""What a run is started with, pinned: a resumed run uses this, whatever the code says by then."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    Field,
    PlainSerializer,
    PlainValidator,
    SerializerFunctionWrapHandler,
    model_serializer,
)
from pydantic_core import to_json

from polos.v1.error_pb2 import FailureReason
from polos.v1.event_pb2 import AgentStart
from polos_client.define.agent import Agent
from polos_client.define.agent_tool import AgentTool
from polos_client.define.stop import StopCondition, restore
from polos_client.define.tool import Tool
from polos_service.errors import StepError
from polos_service.models.messages import Message, Text, dump, load
from polos_service.models.openai.chat_messages import Writer
from polos_service.models.openai.form import stored_messages_of
from polos_service.runs.pinned import FIRST_VERSION, unpinned
from polos_service.runs.runnable import AGENT, RunRequest
from polos_service.runs.spending import TreeBudget

VERSION: Literal[4] = 4
"""The newest version of its format: a further one where earlier code would read it wrongly.

Version 1 has the conversation in the form of the OpenAI chat API. Version 3 is version 2 with a
tool that needs approval, which earlier code would call without. Version 4 is version 3 with a tool
that is an agent, which earlier code could not call, with an output schema, which it would not hold
the answer to, or with a budget, which it would exceed.
"""

WITH_APPROVALS: Literal[3] = 3
"""The version of a definition in which a tool needs approval, without what version 4 has."""

WITHOUT_APPROVALS: Literal[2] = 2
"""The version of a definition in which no tool needs approval, and without a budget."""


LATER = frozenset({"approval", "agent"})
"""The members of a tool that are stored only if they say something."""


class PinnedTool(BaseModel):
    """A tool as the model sees it, whether a call of it needs approval, and which agent it is.

    Its code is the loaded agent's, found by name. A function without approval is stored as in
    version 2.
    """

    name: str
    description: str
    parameters: dict[str, Any]
    approval: bool = False
    agent: str = ""

    @classmethod
    def of(cls, tool: Tool) -> PinnedTool:
        """Return a tool as it is now."""
        return cls(
            name=tool.id,
            description=tool.description,
            parameters=tool.parameters,
            approval=tool.approval == "always",
            agent=tool.agent.id if isinstance(tool, AgentTool) else "",
        )

    def offered(self) -> dict[str, Any]:
        """Return what the model sees."""
        return self.model_dump(include={"name", "description", "parameters"})

    @model_serializer(mode="wrap")
    def _stored(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        stored: dict[str, Any] = dump(self)
        return {name: one for name, one in stored.items() if one or name not in LATER}


class PinnedStop(BaseModel):
    """A stop condition; the code of one that is not built in is the loaded agent's."""

    name: str
    config: dict[str, Any] | None


class PinnedOutput(BaseModel):
    """The type of the answers; its validators are the loaded agent's."""

    name: str
    schema_: dict[str, Any] = Field(alias="schema")


class PinnedDeadlines(BaseModel):
    """Seconds that the parts of a run may take; that of the run stands in its record."""

    first_token: float
    token_gap: float
    tool_call: float


def _conversation(given: Any) -> list[Message]:
    return given if isinstance(given, list) else load(given)


class Definition(BaseModel):
    """A run's definition. Private: it is stored beside the log; only the conversation is served."""

    kind: Literal["agent"] = AGENT
    v: Literal[2, 3, 4] = WITHOUT_APPROVALS
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
    conversation: Annotated[list[Message], PlainValidator(_conversation), PlainSerializer(dump)]
    options: dict[str, Any]
    initial_state: dict[str, Any]
    session_id: str | None
    user_id: str | None
    streaming: bool
    output: PinnedOutput | None = None
    budget: TreeBudget | None = None

    @model_serializer(mode="wrap")
    def _stored(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        stored: dict[str, Any] = dump(self)
        for name in ("output", "budget"):
            if getattr(self, name) is None:  # as in version 3
                stored.pop(name, None)
        return stored

    @classmethod
    def pin(cls, agent: Agent, request: RunRequest, conversation: Sequence[Message]) -> Definition:
        """Return the definition of a run of this agent as it is now.

        Args:
            agent: what runs.
            request: the start.
            conversation: its payload, read.

        """
        deadlines = request.deadlines.over(agent.deadlines)
        tools = [PinnedTool.of(tool) for tool in agent.tools]
        told = agent.output
        output = None if told is None else PinnedOutput(name=told.name, schema=told.schema)
        return cls(
            v=VERSION if output or request.budget else version_for(tools),
            agent_id=agent.id,
            provider=agent.provider,
            model=agent.model,
            system_prompt=agent.system_prompt,
            base_url=agent.provider_base_url,
            api=agent.provider_llm_api,
            settings=agent.provider_kwargs,
            tools=tools,
            temperature=agent.temperature,
            max_output_tokens=agent.max_output_tokens,
            stop_conditions=[
                PinnedStop(name=stop.name, config=stop.config) for stop in agent.stop_conditions
            ],
            deadlines=PinnedDeadlines.model_validate(deadlines, from_attributes=True),
            conversation=list(conversation),
            options=dict(request.model_options),
            initial_state=dict(request.initial_state),
            session_id=request.session_id,
            user_id=request.user_id,
            streaming=request.streaming or agent.stream_to_workflow,
            output=output,
            budget=request.budget,
        )

    def stored(self, messages: Sequence[Mapping[str, Any]]) -> bytes:
        """Return it as it is stored: in version 1, which every replica reads, if that holds it.

        Args:
            messages: its conversation, as the caller sent it.

        """
        if self.v != WITHOUT_APPROVALS or self.api is not None or self.settings:
            return self.model_dump_json(by_alias=True).encode()
        told = self.model_dump(mode="json", exclude={"v", "conversation"})
        return to_json(told | {"v": FIRST_VERSION, "messages": [*messages]})

    @classmethod
    def unpin(cls, pinned: bytes) -> Definition:
        """Return the definition that was stored, by this version or an earlier one.

        Raises:
            Unable: it is of another kind, or a newer version.
            ValueError: it is damaged.

        """
        stored = unpinned(pinned, AGENT, VERSION)
        if stored.get("v", FIRST_VERSION) == FIRST_VERSION:
            stored |= {"v": WITHOUT_APPROVALS, "conversation": _first_conversation(stored)}
        return cls.model_validate(stored)

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
            output_schema_name=self.output.name if self.output else "",
        )

    def messages(self) -> list[Message]:
        """Return the messages of the first model call."""
        prompt = self.system_prompt
        system = [Message(role="system", parts=(Text(text=prompt),))] if prompt else []
        return [*system, *self.conversation]

    def restore_stops(self, loaded: Sequence[StopCondition]) -> list[StopCondition]:
        """Return the stop conditions; the code of custom ones is among those loaded.

        Raises:
            StepError: one is no longer loaded.

        """
        try:
            return [restore(stop.name, stop.config, loaded) for stop in self.stop_conditions]
        except LookupError as error:
            raise StepError(FailureReason.FAILURE_REASON_CODE_MISSING, str(error)) from error


def conversation_of(pinned: bytes) -> list[dict[str, Any]]:
    """Return the conversation that a run was started with, in the form of the OpenAI chat API.

    Version 1 has it as it was sent; others have the same content.

    Raises:
        Unable: the definition is of another kind, or a newer version.
        LookupError, TypeError, ValueError: it is damaged.

    """
    stored = unpinned(pinned, AGENT, VERSION)
    if stored.get("v", FIRST_VERSION) == FIRST_VERSION:
        return list(stored["messages"])
    return Writer(provider=stored["provider"]).messages(load(stored["conversation"]))


def version_for(tools: Sequence[PinnedTool]) -> Literal[2, 3, 4]:
    """Return the version of a definition with these tools: the first that holds them."""
    if any(tool.agent for tool in tools):
        return VERSION
    return WITH_APPROVALS if any(tool.approval for tool in tools) else WITHOUT_APPROVALS


def _first_conversation(stored: Mapping[str, Any]) -> list[Message]:
    """Return the conversation of a definition of version 1."""
    try:
        return stored_messages_of(stored["messages"], stored["provider"])
    except (AttributeError, LookupError, TypeError) as error:
        raise ValueError(f"The stored conversation is damaged: {error!r:.200}") from error


def shown(provider: str, model: str) -> str:
    """Return the model's name for readers: for a script, a fixed word."""
    return "script" if provider == "scripted" else model
