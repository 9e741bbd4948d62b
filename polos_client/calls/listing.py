"""Lists of a project and of what it may start, read page by page."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from datetime import datetime

from polos.v1 import run_service_pb2 as rpc
from polos.v1.agent_pb2 import Agent, Workflow
from polos.v1.agent_service_pb2 import ListAgentsRequest, ListWorkflowsRequest
from polos.v1.agent_service_pb2_grpc import AgentServiceStub
from polos.v1.run_pb2 import Run, RunState
from polos.v1.run_service_pb2_grpc import RunServiceStub
from polos_client.calls.connection import Connection
from polos_client.calls.states import STATES
from polos_client.calls.waiting import Wait
from polos_client.errors import InvalidRequest
from polos_client.wire import PAGE_LIMIT


def runs_request(
    *,
    workflow_id: str | None,
    state: str | None,
    session_id: str | None,
    user_id: str | None,
    created_from: datetime | None,
    created_before: datetime | None,
    parent_id: str | None,
) -> rpc.ListRunsRequest:
    """Return the request for the runs that `PolosClient.list_runs` describes."""
    if state is not None and state not in STATES:
        raise InvalidRequest({"state": f"is {state!r}; it must be {', '.join(STATES)}"})
    request = rpc.ListRunsRequest(
        workflow_id=workflow_id or "",
        state=STATES[state] if state else RunState.RUN_STATE_UNSPECIFIED,
        session_id=session_id or "",
        user_id=user_id or "",
        parent_run_id=parent_id or "",
    )
    if created_from is not None:
        request.created_from.FromDatetime(created_from)
    if created_before is not None:
        request.created_before.FromDatetime(created_before)
    return request


async def runs(
    connection: Connection, request: rpc.ListRunsRequest, limit: int | None
) -> AsyncGenerator[Run, None]:
    """Yield the runs that a request asks for, up to `limit`."""
    left = _checked(limit)
    while left is None or left > 0:
        request.page_size = PAGE_LIMIT if left is None else min(left, PAGE_LIMIT)
        page = await connection.call(lambda channel: RunServiceStub(channel).ListRuns, request)
        for run in page.runs:
            yield run
        if not page.next_page_token:
            return
        request.page_token = page.next_page_token
        left = None if left is None else left - len(page.runs)


async def waits(
    connection: Connection, workflow_id: str | None, limit: int | None
) -> AsyncGenerator[Wait, None]:
    """Yield the open waits of the project, up to `limit`."""
    left = _checked(limit)
    request = rpc.ListWaitsRequest(workflow_id=workflow_id or "")
    while left is None or left > 0:
        request.page_size = PAGE_LIMIT if left is None else min(left, PAGE_LIMIT)
        page = await connection.call(lambda channel: RunServiceStub(channel).ListWaits, request)
        for wait in page.waits:
            yield Wait.of(wait)
        if not page.next_page_token:
            return
        request.page_token = page.next_page_token
        left = None if left is None else left - len(page.waits)


def _checked(limit: int | None) -> int | None:
    if limit is not None and limit < 0:
        raise InvalidRequest({"limit": f"is {limit}; it cannot be negative"})
    return limit


async def agents(connection: Connection) -> AsyncIterator[Agent]:
    """Yield the agents that the service has loaded, by id."""
    request = ListAgentsRequest()
    more = True
    while more:
        page = await connection.call(lambda channel: AgentServiceStub(channel).ListAgents, request)
        for agent in page.agents:
            yield agent
        request.page_token = page.next_page_token
        more = bool(page.next_page_token)


async def workflows(connection: Connection) -> AsyncIterator[Workflow]:
    """Yield the workflows that the service has loaded, by id."""
    request = ListWorkflowsRequest()
    more = True
    while more:
        page = await connection.call(
            lambda channel: AgentServiceStub(channel).ListWorkflows, request
        )
        for workflow in page.workflows:
            yield workflow
        request.page_token = page.next_page_token
        more = bool(page.next_page_token)
