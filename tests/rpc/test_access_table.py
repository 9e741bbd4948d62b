"""Every method with every kind of credentials: docs/security.md has what comes out."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
from google.protobuf.message import Message
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2

from polos.v1 import admin_service_pb2 as admin_pb
from polos.v1 import agent_service_pb2 as agents_pb
from polos.v1 import run_service_pb2 as runs_pb
from polos_client.calls.status import to_error
from polos_client.errors import CallError
from polos_service.access import signing
from polos_service.access.keys import new_text
from polos_service.caller import EVERYTHING, SCOPES
from scripts.docs_access import COLUMNS, SERVICES, with_access_table
from tests.support.access import Admin, Header, bearer, guarded
from tests.support.service import Served, scripted

SECURITY = Path(__file__).parents[2] / "docs" / "security.md"

AGENT = scripted("fine")

WHOLE = [scope for scope in SCOPES if scope != EVERYTHING]
"""Every scope that is for one project."""

REQUESTS: dict[str, Message] = {
    "StreamRun": runs_pb.StreamRunRequest(agent_id=AGENT.id, input="Go."),
    "CreateRun": runs_pb.CreateRunRequest(agent_id=AGENT.id, input="Go."),
    "ListRuns": runs_pb.ListRunsRequest(),
    "GetAgent": agents_pb.GetAgentRequest(agent_id=AGENT.id),
    "ListAgents": agents_pb.ListAgentsRequest(),
    "CreateKey": admin_pb.CreateKeyRequest(name="k", project="mine", scopes=["runs:read"]),
    "ListKeys": admin_pb.ListKeysRequest(project="mine"),
    "RevokeRunTokens": admin_pb.RevokeRunTokensRequest(),
    "Check": health_pb2.HealthCheckRequest(),
    "List": health_pb2.HealthCheckRequest(),  # as empty as its own, which has no types
    "Watch": health_pb2.HealthCheckRequest(),
    "ServerReflectionInfo": reflection_pb2.ServerReflectionRequest(list_services=""),
}
"""Requests that succeed for the right caller."""

WITH_RUN: dict[str, Callable[[str], Message]] = {
    "StreamWorkflow": lambda run_id: runs_pb.StreamWorkflowRequest(workflow_run_id=run_id),
    "GetRun": lambda run_id: runs_pb.GetRunRequest(run_id=run_id),
    "CancelRun": lambda run_id: runs_pb.CancelRunRequest(run_id=run_id),
    "DeleteRun": lambda run_id: runs_pb.DeleteRunRequest(run_id=run_id),
    "CreateRunToken": lambda run_id: runs_pb.CreateRunTokenRequest(run_id=run_id),
}
"""Those that need a run that has ended."""


@dataclass(frozen=True, slots=True)
class Scene:
    """A service with two projects; the agent is for `mine` alone."""

    served: Served
    admin: Admin
    mine: Header

    async def run(self) -> str:
        """Return the id of a new run that has ended."""
        create = runs_pb.CreateRunRequest(agent_id=AGENT.id, input="Go.")
        run_id = (await self.served.runs.CreateRun(create, metadata=self.mine)).run.run_id
        read = runs_pb.StreamWorkflowRequest(workflow_run_id=run_id)
        async for _ in self.served.runs.StreamWorkflow(read, metadata=self.mine):
            pass
        return run_id

    async def request(self, method: str) -> Message:
        """Return a request that succeeds for the right caller."""
        if method == "RevokeKey":
            return admin_pb.RevokeKeyRequest(key_id=(await self.admin.key("mine")).key.key_id)
        if method in WITH_RUN:
            return WITH_RUN[method](await self.run())
        return REQUESTS[method]

    async def header(self, kind: str, scopes: Sequence[str], request: Message) -> Header:
        """Return credentials of a kind for a method that needs these scopes."""
        made: dict[str, Callable[[], Awaitable[Header]]] = {
            "none": self.none,
            "malformed": self.malformed,
            "unknown": self.unknown,
            "expired": partial(self.admin.expired, self.served, "mine", scopes or WHOLE),
            "revoked": partial(self.revoked, scopes or WHOLE),
            "other scope": partial(
                self.admin.header, "mine", [one for one in WHOLE if one not in scopes]
            ),
            "other project": partial(self.admin.header, "theirs", WHOLE),
            "run token": partial(self.run_token, request),
            "right": partial(self.admin.header, "mine", scopes or WHOLE),
        }
        return await made[kind]()

    async def none(self) -> Header:
        """Return no credentials."""
        return ()

    async def malformed(self) -> Header:
        """Return what looks like a key and is not one."""
        return bearer("polos_short")

    async def unknown(self) -> Header:
        """Return a key that nobody has created."""
        return bearer(new_text().full())

    async def revoked(self, scopes: Sequence[str]) -> Header:
        """Return a key that was revoked."""
        key = await self.admin.key("mine", scopes)
        await self.admin.revoke(key)
        return bearer(key.api_key)

    async def run_token(self, request: Message) -> Header:
        """Return a token for the run that a request names, or for another one."""
        named = getattr(request, "run_id", "") or getattr(request, "workflow_run_id", "")
        ask = runs_pb.CreateRunTokenRequest(run_id=named or await self.run())
        made = await self.served.runs.CreateRunToken(ask, metadata=self.mine)
        return bearer(made.token)


@pytest.fixture
def registered(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Return the handlers that a server registers, by the path of the method."""
    found: dict[str, Any] = {}
    server: Any = import_module("grpc.aio._server").Server
    add = server.add_generic_rpc_handlers

    def remember(self: Any, handlers: Any) -> None:
        for one in handlers:
            found.update(one._method_handlers)
        add(self, handlers)

    monkeypatch.setattr(server, "add_generic_rpc_handlers", remember)
    return found


async def outcome(served: Served, path: str, handler: Any, request: Message, header: Header) -> str:
    """Call a method, and return what comes out, as the table has it."""
    channel: Any = served.channel
    data = request.SerializeToString()
    try:
        if not handler.response_streaming:
            answer = await channel.unary_unary(path)(data, metadata=header)
        else:
            call = (
                channel.stream_stream(path)(iter([data]), metadata=header)
                if handler.request_streaming
                else channel.unary_stream(path)(data, metadata=header)
            )
            answer = await call.read()
            call.cancel()
    except grpc.aio.AioRpcError as error:
        if error.code() is grpc.StatusCode.UNIMPLEMENTED:
            return error.code().name
        refused = to_error(error, "the service")
        assert isinstance(refused, CallError), refused
        return f"{error.code().name} {refused.metadata.get('cause', '')}".strip()
    lists = path.rpartition("/")[2] in ("ListRuns", "ListAgents")
    return "OK, nothing" if lists and not answer else "OK"


async def test_every_method_answers_to_every_kind_of_credentials_as_documented(
    tmp_path: Path, registered: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(signing, "HEARD", 0.0)
    async with guarded(tmp_path, AGENT, agent_projects={AGENT.id: ["mine"]}) as (served, admin):
        scene = Scene(served, admin, await admin.header("mine"))
        await scene.run()
        found: dict[tuple[str, str], str] = {}
        expected: dict[tuple[str, str], str] = {}
        for path, handler in sorted(registered.items()):
            _, service, name = path.split("/")
            method = SERVICES[service][name]
            scopes: Sequence[str] = () if method.needs is None else method.needs.scopes
            for kind in COLUMNS:
                request = await scene.request(name)
                header = await scene.header(kind, scopes, request)
                place = f"{service}.{name}", kind
                found[place] = await outcome(served, path, handler, request, header)
                expected[place] = method.cell(kind)
    assert found == expected
    rows = {f"/{service}/{name}" for service, methods in SERVICES.items() for name in methods}
    assert rows == registered.keys(), "scripts/docs_access.py has a row for each method"


def test_the_table_in_the_documentation_is_that_of_today() -> None:
    page = SECURITY.read_text()
    assert page == with_access_table(page), "run `make docs`"
