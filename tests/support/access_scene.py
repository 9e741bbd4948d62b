"""A service with two projects over TLS, and callers with every kind of credentials."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from importlib import import_module
from itertools import count
from pathlib import Path
from typing import Any, Protocol
from unittest.mock import patch

import grpc
import grpc.aio
import trustme
from google.protobuf.message import Message
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2

from polos.v1 import admin_service_pb2 as admin_pb
from polos.v1 import agent_service_pb2 as agents_pb
from polos.v1 import run_service_pb2 as runs_pb
from polos.v1.admin_service_pb2_grpc import AdminServiceStub
from polos.v1.run_service_pb2_grpc import RunServiceStub
from polos_client.calls.status import to_error
from polos_client.define.context import WorkflowContext
from polos_client.define.workflow import workflow
from polos_client.errors import CallError
from polos_service.access.keys import new_text
from polos_service.caller import EVERYTHING, SCOPES
from polos_service.server import Service
from scripts.docs_access import SERVICES, Method
from tests.support.access import BOOTSTRAP, Admin, Header, bearer
from tests.support.issuer import AUDIENCE
from tests.support.service import scripted, settings_for
from tests.support.tls import PAST, Files

AGENT = scripted("fine")

WHOLE = [scope for scope in SCOPES if scope != EVERYTHING]
"""Every scope that is for one project."""

REQUESTS: dict[str, Message] = {
    "StreamRun": runs_pb.StreamRunRequest(agent_id=AGENT.id, input="Go."),
    "CreateRun": runs_pb.CreateRunRequest(agent_id=AGENT.id, input="Go."),
    "ListRuns": runs_pb.ListRunsRequest(),
    "ListWaits": runs_pb.ListWaitsRequest(),
    "GetAgent": agents_pb.GetAgentRequest(agent_id=AGENT.id),
    "ListAgents": agents_pb.ListAgentsRequest(),
    "ListWorkflows": agents_pb.ListWorkflowsRequest(),
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


LISTS = ("ListRuns", "ListAgents", "ListWorkflows", "ListWaits")
"""Those that answer nothing to callers of another project."""


@workflow(id="asking")
async def asking(ctx: WorkflowContext) -> None:
    """Wait for an answer that nobody gives."""
    await ctx.step.suspend("open")


class Tokens(Protocol):
    """An issuer of JWTs.

    Attributes:
        url: what it calls itself.

    """

    url: str

    async def token_of(self, kind: str, scopes: Sequence[str]) -> str:
        """Return a JWT of a kind (`JWT: ...`) for the project `mine`."""


@dataclass(frozen=True)
class Scene:
    """A service with two projects over TLS; the agent and the workflow are for `mine` alone.

    Attributes:
        service: the service.
        files: its certificates.
        tokens: who issues JWTs.
        channel: to the service, with a certificate that names nobody if it needs one.
        handlers: what the server has registered, by the path of the method.
        keys: numbers the answers, each of which is for a wait of its own.

    """

    service: Service
    files: Files
    tokens: Tokens
    channel: grpc.aio.Channel
    handlers: Mapping[str, Any]
    keys: Iterator[int] = field(default_factory=count)

    @cached_property
    def admin(self) -> Admin:
        """Somebody with the bootstrap key."""
        return Admin(AdminServiceStub(self.channel))

    async def mine(self) -> Header:
        """Return the metadata of a caller of the agent's project."""
        return await self.admin.header("mine")

    async def run(self) -> str:
        """Return the id of a new run that has ended."""
        mine, runs = await self.mine(), RunServiceStub(self.channel)
        create = runs_pb.CreateRunRequest(agent_id=AGENT.id, input="Go.")
        run_id = (await runs.CreateRun(create, metadata=mine)).run.run_id
        read = runs_pb.StreamWorkflowRequest(workflow_run_id=run_id)
        async for _ in runs.StreamWorkflow(read, metadata=mine):
            pass
        return run_id

    async def waiting(self) -> str:
        """Return the id of the run that waits, the only one that does."""
        mine, runs = await self.mine(), RunServiceStub(self.channel)
        create = runs_pb.CreateRunRequest(agent_id=asking.id, request_id="waiting")
        run_id = (await runs.CreateRun(create, metadata=mine)).run.run_id
        read = runs_pb.StreamWorkflowRequest(workflow_run_id=run_id)
        reader = runs.StreamWorkflow(read, metadata=mine)
        async for response in reader:
            if any(event.HasField("suspended") for event in response.events):
                break
        reader.cancel()
        return run_id

    async def request(self, method: str) -> Message:
        """Return a request that succeeds for the right caller."""
        if method == "RevokeKey":
            return admin_pb.RevokeKeyRequest(key_id=(await self.admin.key("mine")).key.key_id)
        if method == "ResumeRun":
            key = f"key-{next(self.keys)}"
            run_id = await self.waiting()
            return runs_pb.ResumeRunRequest(run_id=run_id, step_key=key, data_json="1")
        if method in WITH_RUN:
            return WITH_RUN[method](await self.run())
        return REQUESTS[method]

    async def compare(self, kinds: Sequence[str]) -> None:
        """Call every method with credentials of these kinds, and compare with the table."""
        await self.run()
        await self.waiting()
        found: dict[tuple[str, str], str] = {}
        expected: dict[tuple[str, str], str] = {}
        for path in sorted(self.handlers):
            _, service, name = path.split("/")
            for kind in kinds:
                found[path, kind] = await self.answer(path, kind)
                expected[path, kind] = SERVICES[service][name].cell(kind)
        assert found == expected
        rows = {f"/{service}/{name}" for service, methods in SERVICES.items() for name in methods}
        assert rows == self.handlers.keys(), "scripts/docs_access.py has a row for each method"

    async def answer(self, path: str, kind: str) -> str:
        """Call a method with credentials of a kind; return what comes out, as in the table."""
        _, service, name = path.split("/")
        handler = self.handlers[path]
        scopes = scopes_of(SERVICES[service][name])
        request = await self.request(name)
        if not kind.startswith("certificate"):
            header = await self.header(kind, scopes, request)
            return await outcome(self.channel, path, handler, request, header)
        shown = self.certificate(kind, scopes)
        async with reaching(self.service, self.files.trusting(shown)) as channel:
            return await outcome(channel, path, handler, request, ())

    async def header(self, kind: str, scopes: Sequence[str], request: Message) -> Header:
        """Return the metadata with credentials of a kind for a method that needs these scopes."""
        made: dict[str, Callable[[], Awaitable[Header]]] = {
            "none": self.none,
            "malformed": self.malformed,
            "unknown": self.unknown,
            "expired": partial(self.admin.expired, self.service, "mine", scopes or WHOLE),
            "revoked": partial(self.revoked, scopes or WHOLE),
            "other scope": partial(self.admin.header, "mine", others_than(scopes)),
            "other project": partial(self.admin.header, "theirs", WHOLE),
            "run token": partial(self.run_token, request),
            "right": partial(self.admin.header, "mine", scopes or WHOLE),
        }
        if kind in made:
            return await made[kind]()
        return bearer(await self.tokens.token_of(kind, scopes or WHOLE))

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
        runs = RunServiceStub(self.channel)
        return bearer((await runs.CreateRunToken(ask, metadata=await self.mine())).token)

    def certificate(self, kind: str, scopes: Sequence[str]) -> trustme.LeafCert | None:
        """Return a client's certificate of a kind for a method that needs these scopes."""
        clients = self.files.clients
        name = name_of(kind, scopes)
        if kind == "certificate: none":
            return None
        if kind == "certificate: expired":
            return clients.issue_cert(name, not_after=PAST)
        return (trustme.CA() if kind.endswith("authority") else clients).issue_cert(name)


def scopes_of(method: Method) -> Sequence[str]:
    """Return the scopes that a method needs."""
    return () if method.needs is None else method.needs.scopes


def others_than(scopes: Sequence[str]) -> list[str]:
    """Return every scope but these."""
    return [one for one in WHOLE if one not in scopes]


def name_of(kind: str, scopes: Sequence[str]) -> str:
    """Return the name in a certificate of a kind."""
    told = "-".join(scopes).replace(":", "").replace("*", "all") or "none"
    return f"{told}.{kind.partition(': ')[2].replace(' ', '-')}.example"


def identities() -> Mapping[str, Mapping[str, Any]]:
    """Return whom the names in certificates stand for, for every method."""
    found: dict[str, Mapping[str, Any]] = {}
    for method in (one for methods in SERVICES.values() for one in methods.values()):
        scopes = scopes_of(method)
        for kind, project, granted in (
            ("certificate: right", "mine", scopes or WHOLE),
            ("certificate: other scope", "mine", others_than(scopes)),
            ("certificate: other project", "theirs", WHOLE),
        ):
            found[name_of(kind, scopes)] = {"project": project, "scopes": list(granted)}
    return found


@contextlib.asynccontextmanager
async def playing(folder: Path, tokens: Tokens, *, mutual: bool) -> AsyncIterator[Scene]:
    """Run the service, over mTLS if it is mutual."""
    files = Files(folder)
    demanded = {**files.mutual, "client_identities": identities()} if mutual else files.settings
    settings = settings_for(
        folder,
        bootstrap_key=BOOTSTRAP,
        agent_projects={AGENT.id: ["mine"], asking.id: ["mine"]},
        jwt_issuer=tokens.url,
        jwt_audience=AUDIENCE,
        jwt_scopes={scope: [scope] for scope in SCOPES},
        **demanded,
    )
    with registering() as handlers:
        service = await Service.start(settings, [AGENT, asking])
    try:
        stranger = files.clients.issue_cert("nobody.example") if mutual else None
        async with reaching(service, files.trusting(stranger)) as channel:
            yield Scene(service, files, tokens, channel, handlers)
    finally:
        await service.stop(0)


@contextlib.contextmanager
def registering() -> Iterator[Mapping[str, Any]]:
    """Find the handlers that a server registers, by the path of the method."""
    found: dict[str, Any] = {}
    server: Any = import_module("grpc.aio._server").Server
    add = server.add_generic_rpc_handlers

    def remember(self: Any, handlers: Any) -> None:
        for one in handlers:
            found.update(one._method_handlers)
        add(self, handlers)

    with patch.object(server, "add_generic_rpc_handlers", remember):
        yield found


def reaching(service: Service, credentials: grpc.ChannelCredentials) -> grpc.aio.Channel:
    """Return a channel with a connection of its own."""
    options = (("grpc.use_local_subchannel_pool", 1),)
    return grpc.aio.secure_channel(service.address, credentials, options=options)


async def outcome(channel: Any, path: str, handler: Any, request: Message, header: Header) -> str:
    """Call a method, and return what comes out, as the table has it."""
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
        return refused(error)
    return "OK, nothing" if path.rpartition("/")[2] in LISTS and not answer else "OK"


def refused(error: grpc.aio.AioRpcError) -> str:
    """Return what a refusal is in the table."""
    if error.code() is grpc.StatusCode.UNIMPLEMENTED:
        return error.code().name
    if error.code() is grpc.StatusCode.UNAVAILABLE:
        return "no connection"
    told = to_error(error, "the service")
    assert isinstance(told, CallError), told
    return f"{error.code().name} {told.metadata.get('cause', '')}".strip()
