"""PolosClient.get_agent and list_agents, against a service that tells a given list."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import grpc.aio
import pytest

from polos.v1.agent_pb2 import Agent
from polos.v1.agent_service_pb2 import (
    GetAgentRequest,
    GetAgentResponse,
    ListAgentsRequest,
    ListAgentsResponse,
    ListWorkflowsRequest,
    ListWorkflowsResponse,
)
from polos.v1.agent_service_pb2_grpc import (
    AgentServiceServicer,
    add_AgentServiceServicer_to_server,
)
from polos_client.calls.client import PolosClient
from polos_client.errors import ConnectionLost

Context = grpc.aio.ServicerContext[Any, Any]


class Agents(AgentServiceServicer):
    """Tells `IDS`, two a page, and knows no other."""

    async def ListAgents(  # noqa: N802 - the proto's name
        self, request: ListAgentsRequest, context: Context
    ) -> ListAgentsResponse:
        begin = int(request.page_token or 0)
        end = begin + 2
        agents = [Agent(agent_id=one) for one in IDS[begin:end]]
        return ListAgentsResponse(agents=agents, next_page_token=str(end) if end < len(IDS) else "")

    async def GetAgent(  # noqa: N802 - the proto's name
        self, request: GetAgentRequest, context: Context
    ) -> GetAgentResponse:
        if request.agent_id not in IDS:
            await context.abort(grpc.StatusCode.UNIMPLEMENTED, "no such agent")
        return GetAgentResponse(agent=Agent(agent_id=request.agent_id, model="m"))

    async def ListWorkflows(  # noqa: N802 - the proto's name
        self, request: ListWorkflowsRequest, context: Context
    ) -> ListWorkflowsResponse:
        await context.abort(grpc.StatusCode.UNIMPLEMENTED, "not asked for")


IDS = ["a", "b", "c", "d", "e"]


@pytest.fixture
async def client() -> AsyncIterator[PolosClient]:
    server = grpc.aio.server()
    add_AgentServiceServicer_to_server(Agents(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with PolosClient(f"127.0.0.1:{port}") as connected:
        yield connected
    await server.stop(None)


async def test_list_agents_returns_those_of_every_page(client: PolosClient) -> None:
    assert [agent.agent_id for agent in await client.list_agents()] == IDS


async def test_get_agent_returns_the_agent_that_was_named(client: PolosClient) -> None:
    assert await client.get_agent("c") == Agent(agent_id="c", model="m")


async def test_get_agent_raises_what_the_service_refuses_with(client: PolosClient) -> None:
    with pytest.raises(ConnectionLost, match="no such agent"):
        await client.get_agent("z")
