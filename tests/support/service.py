"""A real service on a real socket and a real file, and what tests look at it with."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc.aio
from grpc_health.v1 import health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2_grpc

from polos.v1 import run_service_pb2 as pb
from polos.v1.agent_service_pb2_grpc import AgentServiceStub
from polos.v1.event_pb2 import Event
from polos.v1.run_service_pb2_grpc import RunServiceStub
from polos_client.calls.client import PolosClient
from polos_client.define.agent import Agent
from polos_client.define.scripted import script
from polos_client.define.tool import Tool
from polos_client.define.workflow import Workflow
from polos_service.config import Settings
from polos_service.reading.tail import Readers
from polos_service.server import Service
from polos_service.store.sqlite import SqliteStore
from polos_service.store.sqlite.spool import spooled_frames

if TYPE_CHECKING:  # mypy-protobuf's names for what the stubs of a channel of grpc.aio are
    from polos.v1.agent_service_pb2_grpc import AgentServiceAsyncStub
    from polos.v1.run_service_pb2_grpc import RunServiceAsyncStub

BOUND = 60.0
"""Seconds within which whatever a test waits for must have happened."""


@dataclass(frozen=True, slots=True)
class Served:
    """A service that runs, and ways to it: a client, and stubs on a bare channel."""

    service: Service
    path: Path
    client: PolosClient
    channel: grpc.aio.Channel
    runs: RunServiceAsyncStub
    agents: AgentServiceAsyncStub

    @property
    def store(self) -> SqliteStore:
        """The service's store."""
        store = self.service._store
        assert isinstance(store, SqliteStore)
        return store

    @property
    def readers(self) -> Readers:
        """All who read logs in the service."""
        return self.service._runs._readers

    async def start(self, agent: Agent, *, streaming: bool = True, **more: Any) -> str:
        """Start a run and return its id."""
        request = pb.CreateRunRequest(agent_id=agent.id, input="Go.", streaming=streaming, **more)
        return (await self.runs.CreateRun(request)).run.run_id

    async def events(self, run_id: str, after: int = 0) -> list[Event]:
        """Read a run from a cursor to its end."""
        return [event async for event in self.follow(run_id, after)]

    async def follow(self, run_id: str, after: int = 0) -> AsyncIterator[Event]:
        """Yield a run's events from a cursor to its end, over one call."""
        request = pb.StreamWorkflowRequest(workflow_run_id=run_id, after_sequence=after)
        live = self.runs.StreamWorkflow(request)
        try:
            async for response in live:
                for event in response.events:
                    yield event
        finally:
            live.cancel()

    def raw(self, run_id: str, after: int = 0) -> Any:
        """Open StreamWorkflow; what it answers stays bytes."""
        open_stream: Any = self.channel.unary_stream(
            "/polos.v1.RunService/StreamWorkflow",
            request_serializer=pb.StreamWorkflowRequest.SerializeToString,
        )
        return open_stream(pb.StreamWorkflowRequest(workflow_run_id=run_id, after_sequence=after))

    def health(self) -> Any:
        """Return the stub of the health check; its types know no grpc.aio."""
        return health_pb2_grpc.HealthStub(self.channel)

    def reflection(self) -> Any:
        """Return the stub of reflection; its types know no grpc.aio."""
        channel: Any = self.channel
        return reflection_pb2_grpc.ServerReflectionStub(channel)


@contextlib.asynccontextmanager
async def serving(
    folder: Path, *definitions: Agent | Workflow, **settings: Any
) -> AsyncIterator[Served]:
    """Run a service on `folder`/runs.db for as long as the block."""
    service = await Service.start(settings_for(folder, **settings), definitions)
    try:
        async with reaching(service, folder / "runs.db") as served:
            yield served
    finally:
        await service.stop(0)


@contextlib.asynccontextmanager
async def reaching(service: Service, path: Path) -> AsyncIterator[Served]:
    """Reach a service that runs."""
    address = f"127.0.0.1:{service.port}"
    async with PolosClient(address) as client, grpc.aio.insecure_channel(address) as channel:
        runs, agents = RunServiceStub(channel), AgentServiceStub(channel)
        yield Served(service, path, client, channel, runs, agents)


def settings_for(folder: Path, **more: Any) -> Settings:
    """Return settings of a service on a free port, whose runs are in `folder`/runs.db."""
    return Settings(**{"listen": "127.0.0.1:0", "store": f"sqlite://{folder / 'runs.db'}"} | more)


def scripted(*turns: Any, tools: tuple[Tool, ...] = (), id: str = "demo", **more: Any) -> Agent:
    """Return an agent that plays these turns."""
    return Agent(id, "scripted", script(*turns), tools=tools, **more)


def words(number: int) -> list[str]:
    """Return so many different words, for a turn that says them one by one."""
    return [f"word{index} " for index in range(number)]


async def until(holds: Callable[[], bool | Awaitable[bool]], what: str) -> None:
    """Wait until it holds; fail, saying `what` does not, when that takes too long."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(BOUND):
            while True:
                held = holds()
                if held if isinstance(held, bool) else await held:
                    return
                await asyncio.sleep(0.005)
    raise AssertionError(f"{what}: not within {BOUND:g} s")


def query(path: Path, sql: str, *values: object) -> list[tuple[Any, ...]]:
    """Read the store's file through a connection of one's own."""
    with contextlib.closing(sqlite3.connect(path)) as db:
        return db.execute(sql, values).fetchall()


def stored(path: Path, run_id: str) -> bytes:
    """Return the bytes of a run's log, as they stand in the file."""
    with contextlib.closing(sqlite3.connect(path)) as db:
        db.execute("BEGIN")  # the log and the spool as they are at one time
        (run,) = db.execute("SELECT id FROM runs WHERE run_id = ?", (run_id,)).fetchone()
        log = db.execute("SELECT data FROM frames WHERE run = ? ORDER BY last, id", (run,))
        logged = [data for (data,) in log]
        spooled, _ = spooled_frames(db)
    return b"".join(logged + [frame.data for frame, _ in spooled.get(run, ())])


def events_in(data: bytes) -> list[Event]:
    """Return the events of frames or responses."""
    return list(pb.StreamWorkflowResponse.FromString(data).events)


def kinds(events: list[Event]) -> list[str | None]:
    """Return the events' types."""
    return [event.WhichOneof("payload") for event in events]


def text_of(events: list[Event]) -> str:
    """Return what the text deltas say."""
    return "".join(event.text_delta.content for event in events)


def answer_of(events: list[Event]) -> Event:
    """Return the terminal event; there must be exactly one, the last."""
    assert [event.terminal for event in events] == [False] * (len(events) - 1) + [True]
    return events[-1]
