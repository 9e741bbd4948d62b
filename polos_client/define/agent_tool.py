"""An agent as a tool of another agent."""

from __future__ import annotations

import re
from typing import Annotated, Any

from pydantic import Field

from polos_client.define.children import Defined
from polos_client.define.tool import Tool

_NAME_LIMIT = 64
"""Characters of a tool's name at most."""


class AgentTool(Tool[[str], Any]):
    """An agent that a model may call. Each call is a run of the agent, inside the caller's run.

    Attributes:
        agent: the agent.

    """

    def __init__(self, agent: Defined, id: str | None, description: str, **options: Any) -> None:
        """Make a tool of an agent; the options are those of `@tool`.

        Raises:
            DefinitionError: they cannot be used.

        """
        self.agent = agent
        told = description or f"Asks the agent {agent.id}, and returns its answer."
        super().__init__(run, {}, id=id or name_of(agent.id), description=told, **options)


def name_of(agent_id: str) -> str:
    """Return the name of the tool that an agent is: providers take no dots, and 64 characters."""
    return re.sub(r"[^a-zA-Z0-9_-]", "_", agent_id)[:_NAME_LIMIT]


async def run(input: Annotated[str, Field(description="What the agent is asked")]) -> Any:
    """Stand for the agent: the service runs it instead."""
    del input
    raise RuntimeError(
        "An agent that is a tool runs only in a service. Outside one, call the agent itself: "
        "`await agent.run(client, input)`."
    )
