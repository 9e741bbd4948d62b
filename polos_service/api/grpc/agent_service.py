"""AgentService: tells which agents and workflows are loaded."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any, TypeVar

import grpc
from google.protobuf.message import Message

from polos.v1 import agent_service_pb2 as pb
from polos.v1.agent_pb2 import Agent as AgentMessage
from polos.v1.agent_pb2 import Tool as ToolMessage
from polos.v1.agent_pb2 import Workflow as WorkflowMessage
from polos_client.define.agent import Agent
from polos_client.define.workflow import Workflow
from polos_client.errors import InvalidRequest
from polos_service.agents.definition import shown
from polos_service.api.grpc.handlers import needs
from polos_service.api.grpc.messages import PAGE_BYTES, page_size
from polos_service.caller import AGENTS_READ, Caller
from polos_service.catalog import Catalog

M = TypeVar("M", bound=Message)

Context = grpc.aio.ServicerContext[Any, Any]


class AgentService:
    """The servicer. A caller sees what their project may use."""

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog

    @needs(AGENTS_READ)
    async def GetAgent(
        self, caller: Caller, request: pb.GetAgentRequest, context: Context
    ) -> pb.GetAgentResponse:
        """Return one agent."""
        if not request.agent_id:
            raise InvalidRequest({"agent_id": "is empty"})
        agent = self._catalog.agent(request.agent_id, caller.project)
        return pb.GetAgentResponse(agent=message_of(agent))

    @needs(AGENTS_READ)
    async def ListAgents(
        self, caller: Caller, request: pb.ListAgentsRequest, context: Context
    ) -> pb.ListAgentsResponse:
        """Return a page of agents; the token is the id of the last one on the page before."""
        after = request.page_token
        agents, more = paged(
            (message_of(one) for one in self._catalog.agents(caller.project) if one.id > after),
            page_size(request.page_size),
        )
        return pb.ListAgentsResponse(
            agents=agents, next_page_token=agents[-1].agent_id if more else ""
        )

    @needs(AGENTS_READ)
    async def ListWorkflows(
        self, caller: Caller, request: pb.ListWorkflowsRequest, context: Context
    ) -> pb.ListWorkflowsResponse:
        """Return a page of workflows; the token is the id of the last one on the page before."""
        after = request.page_token
        found = self._catalog.workflows(caller.project)
        workflows, more = paged(
            (workflow_message(one) for one in found if one.id > after),
            page_size(request.page_size),
        )
        return pb.ListWorkflowsResponse(
            workflows=workflows, next_page_token=workflows[-1].workflow_id if more else ""
        )


def paged(messages: Iterable[M], limit: int) -> tuple[list[M], bool]:
    """Return as many messages as one page holds, and whether there are more."""
    page: list[M] = []
    size = 0
    for message in messages:
        size += message.ByteSize()
        if len(page) == limit or (page and size > PAGE_BYTES):
            return page, True
        page.append(message)
    return page, False


def workflow_message(workflow: Workflow) -> WorkflowMessage:
    """Return the workflow as a message."""
    payload, state = workflow.payload_schema, workflow.state_schema
    return WorkflowMessage(
        workflow_id=workflow.id,
        description=workflow.description,
        payload_schema_json=None if payload is None else json.dumps(payload),
        state_schema_json=None if state is None else json.dumps(state.model_json_schema()),
        code_version=workflow.version,
    )


def message_of(agent: Agent) -> AgentMessage:
    """Return the agent as a message; prompts and addresses are not in it."""
    return AgentMessage(
        agent_id=agent.id,
        description=agent.description,
        provider=agent.provider,
        model=shown(agent.provider, agent.model),
        tools=[
            ToolMessage(
                name=tool.id,
                description=tool.description,
                parameters_json=json.dumps(tool.parameters),
                approval=tool.approval == "always",
            )
            for tool in agent.tools
        ],
        temperature=agent.temperature,
        max_output_tokens=agent.max_output_tokens,
        stop_conditions=[stop.name for stop in agent.stop_conditions],
        output_schema_json=json.dumps(agent.output.schema) if agent.output else None,
        output_schema_name=agent.output_schema_name or "",
    )
