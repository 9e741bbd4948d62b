"""The way of a command to the service: --address, and a client that soon knows nobody is there."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from polos_client.errors import PolosError
from polos_service.cli.exits import reporting

if TYPE_CHECKING:
    from polos_client.calls.client import PolosClient

PATIENCE = 3.0
"""Seconds for which a command waits for a service to be there at all."""

Address = Annotated[
    str | None,
    typer.Option(
        metavar="HOST:PORT",
        envvar="POLOS_ADDRESS",
        help="Address of the service. Default: 127.0.0.1:50051.",
    ),
]
"""The option that every command has which talks to a service."""

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, one object per line.")]
"""The option of commands whose output programs read."""


def agent_names(incomplete: str) -> list[str]:
    """Return the agents that the shell may complete to; none where the service is not reached."""
    try:
        agents = asyncio.run(connected(None, lambda client: client.list_agents()))
    except PolosError:
        return []
    return [agent.agent_id for agent in agents if agent.agent_id.startswith(incomplete)]


AgentId = Annotated[
    str, typer.Argument(metavar="AGENT", help="The agent's id.", autocompletion=agent_names)
]
"""The argument of commands that work with an agent."""

_Result = TypeVar("_Result")


def call(address: str | None, work: Callable[[PolosClient], Awaitable[_Result]]) -> _Result:
    """Return what `work` does with a client; an error of ours ends the command."""
    with reporting():
        return asyncio.run(connected(address, work))


async def connected(
    address: str | None, work: Callable[[PolosClient], Awaitable[_Result]]
) -> _Result:
    """Return what `work` does with a client that has reached the service.

    Raises:
        ConnectionLost: nobody was there.
        PolosError: whatever `work` raises.

    """
    from polos_client.calls.client import PolosClient  # noqa: PLC0415 - grpc: `--help` needs none

    async with PolosClient(address) as client:
        await client.reach(PATIENCE)
        return await work(client)
