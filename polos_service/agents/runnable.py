"""An agent as something that can be started."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any, cast

from google.protobuf.message import Message

from polos_client.deadlines import Deadlines
from polos_client.define.agent import Agent
from polos_client.define.agent_tool import AgentTool
from polos_client.errors import DefinitionError, InvalidRequest
from polos_service.agents.definition import Definition
from polos_service.agents.loop import AgentLoop
from polos_service.caller import Caller
from polos_service.errors import StepError, Unable
from polos_service.models.openai.form import messages_of
from polos_service.models.providers import Providers
from polos_service.runs.attempt import check_start
from polos_service.runs.context import RunContext
from polos_service.runs.private import child_line
from polos_service.runs.runnable import AGENT, RunRequest
from polos_service.sidethread import SideThread
from polos_service.workflows.means import Means


@dataclass(frozen=True, slots=True)
class AgentRunnable:
    """An agent, and the providers that its runs ask. Equal if it is the same agent.

    Attributes:
        agent: the agent.
        providers: the providers of all agents.
        means: what the code of its tools works with.
        side_thread: where large definitions are read.

    """

    agent: Agent
    providers: Providers
    means: Means = field(compare=False)
    side_thread: SideThread = field(default_factory=SideThread, compare=False)

    def __post_init__(self) -> None:
        """Load the provider: later that would stall the runs of others.

        Raises:
            DefinitionError: the agent has what JSON cannot hold, names a provider or an API of it
                that this process does not have, or an address that is not allowed, or an agent
                among its tools is too large to be a child.

        """
        definition_of(self.agent)
        for tool in self.agent.tools:
            if isinstance(tool, AgentTool):
                check_child(self.agent, tool)
        try:
            agent = self.agent
            self.providers.find(agent.provider, agent.provider_llm_api, agent.provider_base_url)
        except DefinitionError as error:
            raise DefinitionError(f"The agent {self.agent.id!r}: {error}.") from error

    @property
    def kind(self) -> str:
        """The kind of an agent."""
        return AGENT

    @property
    def id(self) -> str:
        """The agent's id."""
        return self.agent.id

    @property
    def output_schema(self) -> Any:
        """The type of its answers; None if it answers with text."""
        return self.agent.output_schema

    @property
    def timeout(self) -> float | None:
        """Seconds that a run takes at most, waits included, if its start names no other bound."""
        return None if self._waits and not self.agent.bounded else self.agent.deadlines.run

    @property
    def work_limit(self) -> float | None:
        """Seconds that a run without a timeout works at most, not counting its waits."""
        return self.agent.deadlines.run

    @property
    def _waits(self) -> bool:
        """Whether a run may wait: for a person, or in `ctx.step` of a tool."""
        return any(
            tool.asks or tool.approval == "always" or tool.has_steps or isinstance(tool, AgentTool)
            for tool in self.agent.tools
        )

    def pin(self, request: RunRequest) -> bytes:
        """Return the definition of a run.

        Raises:
            InvalidRequest: the provider does not take the model options, or a message of the
                conversation is wrong.

        """
        agent = self.agent
        options = self.providers.check(
            agent.provider, request.model_options, agent.provider_llm_api
        )
        conversation, messages = messages_of(request.payload, agent.provider)
        if options or messages:
            raise InvalidRequest(
                {f"options.provider_options_json.{name}": what for name, what in options.items()}
                | {f"input_messages_json{path}": what for path, what in messages.items()}
            )
        return Definition.pin(agent, request, conversation).stored(request.payload)

    def other_version(self, pinned: bytes) -> str | None:
        """Return None: an agent has no version; its runs are pinned as a whole."""
        del pinned
        return None

    async def first(self, pinned: bytes) -> Message:
        """Return the payload of the event that a run of a definition begins with.

        Raises:
            Unable: the definition is of another kind, or a newer version.
            ValueError: it is damaged.

        """
        return (await self._read(pinned)).started()

    async def run(self, ctx: RunContext, pinned: bytes) -> Message:
        """Run the agent as the definition says, with the code that is loaded now.

        Raises:
            StepError: a model call failed for good, or code of the definition is missing.
            Unable: the definition is of another kind, or a newer version, or names a provider
                that this process does not have.

        """
        with ctx.working():
            definition = await self._read(pinned)
        try:
            model = self.providers[definition.provider]
        except (KeyError, DefinitionError):
            raise Unable(
                f"Its definition names the provider {definition.provider!r}, which this process "
                "does not have: serve the run with the version of polos-grpc that it was started "
                "with, or cancel it.",
                provider=definition.provider,
            ) from None
        if definition.budget is not None:
            ctx.keep_within(definition.budget)
        return await AgentLoop(self.agent, model, ctx, definition, self.means).run()

    async def _read(self, pinned: bytes) -> Definition:
        return await self.side_thread.call(len(pinned), Definition.unpin, pinned)


def bare_request(agent: Agent) -> RunRequest:
    """Return a start of an agent by nobody, with nothing: one that no service has received."""
    return RunRequest(
        caller=Caller(project="", principal="", scopes=frozenset()),
        runnable_id=agent.id,
        payload=[],
        digest=b"",
        size=0,
        model_options={},
        initial_state={},
        deadlines=Deadlines(),
    )


def definition_of(agent: Agent) -> bytes:
    """Return the definition of a run of an agent with an empty conversation, as it is stored.

    Raises:
        DefinitionError: the agent has what JSON cannot hold: NaN in a schema, half a character.

    """
    try:
        pinned = Definition.pin(agent, bare_request(agent), [])
        json.dumps(pinned.model_dump(), allow_nan=False, ensure_ascii=False).encode()
        return pinned.stored([])
    except (TypeError, ValueError) as error:
        raise DefinitionError(
            f"The agent {agent.id!r} cannot be written as JSON: {error}."
        ) from error


def check_child(agent: Agent, tool: AgentTool) -> None:
    """Refuse a tool of an agent whose every call would fail: its agent is too large for a child.

    Raises:
        DefinitionError: it is.

    """
    definition = definition_of(cast("Agent", tool.agent))
    try:
        check_start(tool.agent.id, len(child_line("", definition, None)))
    except StepError as error:
        raise DefinitionError(
            f"The agent {agent.id!r} cannot have the tool {tool.id!r}. {error}"
        ) from error
