"""The agents that the service has loaded, and how each is run."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from types import CodeType

from google.protobuf.message import Message

from polos_client.define.agent import Agent
from polos_client.errors import AgentNotFound, DefinitionError
from polos_service.agents.definition import Definition
from polos_service.agents.loop import AgentLoop
from polos_service.models import Model
from polos_service.models.providers import Providers
from polos_service.runs.context import RunContext
from polos_service.runs.drive import Runnable


class Registry(Mapping[str, Runnable]):
    """Agents by id; to the executor, runnables by id."""

    def __init__(self, providers: Providers, agents: Iterable[Agent] = ()) -> None:
        """Load these agents.

        Raises:
            DefinitionError: two of them have one id.

        """
        self._providers = providers
        self._agents: dict[str, Agent] = {}
        for agent in agents:
            self.add(agent)

    def __getitem__(self, agent_id: str) -> Runnable:
        """Return what runs this agent."""
        agent = self._agents[agent_id]

        async def run(ctx: RunContext, definition: bytes) -> Message:
            pinned = Definition.model_validate_json(definition)
            return await AgentLoop(agent, self._providers[pinned.provider], ctx, pinned).run()

        return run

    def __iter__(self) -> Iterator[str]:
        """Iterate the agents' ids."""
        return iter(self._agents)

    def __len__(self) -> int:
        """Return how many agents are loaded."""
        return len(self._agents)

    def add(self, agent: Agent) -> None:
        """Load an agent, and its provider: later that would stall the runs of others.

        The same agent again is no error.

        Raises:
            DefinitionError: another agent has that id, or the agent has what JSON cannot hold.

        """
        check_storable(agent)
        if self._agents.setdefault(agent.id, agent) is not agent:
            raise DefinitionError(
                f"Two agents have the id {agent.id!r}. Give one of them another id."
            )
        self.model(agent)

    def agent(self, agent_id: str) -> Agent:
        """Return the agent.

        Raises:
            AgentNotFound: none of that id is loaded.

        """
        agent = self._agents.get(agent_id)
        if agent is None:
            known = sorted(self._agents)
            raise AgentNotFound(
                f"There is no agent {agent_id!r}. Loaded: {', '.join(known) or 'none'}.",
                agent_id=agent_id,
                known=",".join(known),
            )
        return agent

    def agents(self) -> list[Agent]:
        """Return the agents by id."""
        return [self._agents[agent_id] for agent_id in sorted(self._agents)]

    def model(self, agent: Agent) -> Model:
        """Return what the agent's provider is asked through."""
        return self._providers[agent.provider]

    def tool_code(self) -> dict[CodeType, str]:
        """Return the tools' ids by the code of their functions."""
        return {
            tool.fn.__code__: tool.id
            for agent in self._agents.values()
            for tool in agent.tools
            if hasattr(tool.fn, "__code__")
        }


def check_storable(agent: Agent) -> None:
    """Refuse an agent whose runs could not be stored: NaN in a schema, half a character.

    Raises:
        DefinitionError: it has what JSON cannot hold.

    """
    try:
        pinned = Definition.pin(
            agent,
            messages=(),
            options={},
            initial_state={},
            deadlines=agent.deadlines,
            session_id=None,
            user_id=None,
            streaming=False,
        )
        json.dumps(pinned.model_dump(), allow_nan=False, ensure_ascii=False).encode()
    except (TypeError, ValueError) as error:
        raise DefinitionError(
            f"The agent {agent.id!r} cannot be written as JSON: {error}."
        ) from error
