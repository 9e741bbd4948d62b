"""The composition root: nothing else wires anything."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Iterable

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from polos.v1 import agent_service_pb2, run_service_pb2
from polos_client.define.agent import Agent
from polos_client.errors import StoreUnavailable
from polos_service import logs
from polos_service.agents.registry import Registry
from polos_service.agents.start import Starts
from polos_service.api.grpc.agent_service import AgentService
from polos_service.api.grpc.guard import Guard
from polos_service.api.grpc.handlers import generic_handler
from polos_service.api.grpc.run_service import RunService
from polos_service.api.grpc.slots import Slots
from polos_service.api.grpc.tail import Tails
from polos_service.config import Settings
from polos_service.listening import ListenError, probe, reaches_further
from polos_service.models import Model
from polos_service.models.providers import Providers
from polos_service.runs.clock import SystemClock
from polos_service.runs.executor import Executor
from polos_service.runs.retention import retain
from polos_service.store import RunStore
from polos_service.store.sqlite import SqliteStore
from polos_service.tools.local import in_thread
from polos_service.tools.watchdog import Watchdog

MESSAGE_LIMIT = 2 * 1024 * 1024
"""Bytes of a request: an input of 1 MiB, state and model options of 256 KiB each, and the rest."""

METADATA_LIMIT = 8 * 1024
"""Bytes of a call's metadata; between this and twice as many, grpc refuses some calls."""

REFUSED_AT_ONCE = 100
"""Calls beyond its bounds that a connection may have, to be told so; more wait at the client."""

BLOCKED_LIMIT = 1.0
"""Seconds for which the loop may be held before the watchdog names who holds it."""

CALLS_GRACE = 1.0
"""Seconds for calls to end by themselves, once readers were sent away."""

OPTIONS = (
    # Else a second server on the same port starts, and takes a share of the calls.
    ("grpc.so_reuseport", 0),
    ("grpc.max_receive_message_length", MESSAGE_LIMIT),
    ("grpc.max_metadata_size", METADATA_LIMIT),
    ("grpc.absolute_max_metadata_size", 2 * METADATA_LIMIT),
    # Requests are small: a connection's window need not grow with its bandwidth.
    ("grpc.http2.bdp_probe", 0),
    # The client pings a silent link every 30 s; by default that is too often for a
    # server, which answers with GOAWAY too_many_pings.
    ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 10_000),
)

EXPOSED = (
    "whoever reaches this port may start and read every run: there are no TLS and credentials yet"
)

WAITING = "it is not loaded: serve it, or end them with `polos runs cancel`"

log = logs.get_logger(__name__)

RUN_SERVICE = run_service_pb2.DESCRIPTOR.services_by_name["RunService"]
AGENT_SERVICE = agent_service_pb2.DESCRIPTOR.services_by_name["AgentService"]
SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING

PART_SECONDS = 10.0
"""Seconds that a part of the service gets to stop; the rest stops without it then."""

HEALTH_PERIOD = 1.0
"""Seconds between two looks whether the store answers."""


class Service:
    """A service that runs, made by `start`.

    Attributes:
        registry: the agents; more can be added while it runs.
        port: where it listens.

    """

    def __init__(self, settings: Settings, store: RunStore, agents: Iterable[Agent]) -> None:
        self._clock = clock = SystemClock()
        self._chores: list[asyncio.Task[None]] = []
        self._store = store
        self._providers = providers(settings)
        self.registry = Registry(self._providers, agents)
        self._executor = Executor(store, self.registry, clock, settings.max_runs)
        self._starts = Starts(self.registry, store, clock)
        self._tails = Tails(store)
        self._health = health.aio.HealthServicer()
        self._server = grpc_server(settings)
        self._register()
        self.port = 0
        self._watchdog = Watchdog(self.registry.tool_code, BLOCKED_LIMIT)

    @classmethod
    async def start(cls, settings: Settings, agents: Iterable[Agent] = ()) -> Service:
        """Open the store, listen, and take up runs: those that a former process left, too.

        Raises:
            DefinitionError: two agents have one id.
            ListenError: the address cannot be listened at.
            StoreUnavailable: the store cannot be opened or reached, or another process has it.

        """
        logs.log_to_stderr()
        store = await open_store(settings)
        try:
            service = cls(settings, store, agents)
        except BaseException:
            await store.close()
            raise
        try:
            service.port = service._listen(settings.listen)
            await service._begin(settings)
        except BaseException:
            await service.stop(0)
            raise
        return service

    async def _begin(self, settings: Settings) -> None:
        await self._server.start()
        await self._say(healthy=True)
        for agent_id, runs in (await self._store.waiting()).items():
            if agent_id not in self.registry:
                log.warning("runs_wait_for_an_agent", agent=agent_id, runs=runs, advice=WAITING)
        self._executor.start()
        self._chores.append(asyncio.create_task(self._watch_store(), name="polos-health"))
        if settings.retention is not None:
            self._keep(settings.retention.total_seconds())

    async def stop(self, grace: float) -> None:
        """Stop: refuse starts, give running runs `grace` seconds, hand the rest over.

        Readers stay until then, and are sent away to come back to the next process. A part
        that fails, or takes PART_SECONDS more than it should, is named in the log and left.
        """
        self._starts.drain()
        for chore in self._chores:
            chore.cancel()
        await ended("health", self._health.enter_graceful_shutdown())
        await ended("runs", self._executor.stop(grace), grace)
        self._tails.close()
        await ended("calls", self._server.stop(CALLS_GRACE), CALLS_GRACE)
        self._watchdog.close()
        await ended("providers", self._providers.close())
        await ended("store", self._store.close())
        await ended("log", in_thread(logs.flush))

    def _keep(self, seconds: float) -> None:
        self._chores.append(asyncio.create_task(retain(self._store, self._clock, seconds)))

    async def _watch_store(self) -> None:
        """Say NOT_SERVING while the store does not answer: others may serve meanwhile."""
        healthy = True
        while True:
            await self._clock.sleep(HEALTH_PERIOD)
            before, healthy = healthy, await self._store.healthy()
            if healthy != before:
                log.warning("store_answers" if healthy else "store_does_not_answer")
                await self._say(healthy=healthy)

    async def _say(self, *, healthy: bool) -> None:
        for name in ("", RUN_SERVICE.full_name, AGENT_SERVICE.full_name):
            await self._health.set(name, SERVING if healthy else NOT_SERVING)

    def _register(self) -> None:
        runs = RunService(self._store, self._starts, self._executor, self._tails)
        self._server.add_generic_rpc_handlers(
            (
                generic_handler(RUN_SERVICE, runs),
                generic_handler(AGENT_SERVICE, AgentService(self.registry)),
            )
        )
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        names = (
            RUN_SERVICE.full_name,
            AGENT_SERVICE.full_name,
            health.SERVICE_NAME,
            reflection.SERVICE_NAME,
        )
        reflection.enable_server_reflection(names, self._server)

    def _listen(self, address: str) -> int:
        probe(address)
        try:
            port = self._server.add_insecure_port(address)
        except RuntimeError as error:  # somebody was quicker, between probe and here
            raise ListenError(f"Cannot listen at {address}: {error}.") from error
        if reaches_further(address):
            log.warning("listens_beyond_this_machine", address=address, advice=EXPOSED)
        return port


async def ended(part: str, work: Awaitable[object], seconds: float = 0) -> None:
    """Await the end of a part, for so many seconds and PART_SECONDS; what goes wrong is logged."""
    ending = asyncio.ensure_future(work)
    await asyncio.wait({ending}, timeout=seconds + PART_SECONDS)
    if not ending.done():
        ending.cancel()
        log.error("part_does_not_stop", part=part, seconds=seconds + PART_SECONDS)
    elif not ending.cancelled() and (error := ending.exception()) is not None:
        log.error("part_failed_to_stop", part=part, exc_info=error)


def grpc_server(settings: Settings) -> grpc.aio.Server:
    """Return a server with the settings' bounds, on which nothing is registered."""
    calls = Slots("call", settings.max_calls, settings.max_calls // 2)
    streams = Slots("stream", settings.max_streams, settings.max_connection_streams)
    on_a_connection = settings.max_connection_streams + settings.max_calls // 2
    options = (
        *OPTIONS,
        ("grpc.max_allowed_incoming_connections", settings.max_connections),
        ("grpc.max_concurrent_streams", on_a_connection + REFUSED_AT_ONCE),
    )
    return grpc.aio.server(interceptors=[Guard(calls, streams)], options=options)


async def open_store(settings: Settings) -> RunStore:
    """Open the store that the settings name.

    Raises:
        StoreUnavailable: it cannot be opened or reached, or another process has it.

    """
    if not settings.nats_servers:
        if os.path.isdir(settings.store_path):  # noqa: ASYNC240, PTH112 - it never raises
            raise StoreUnavailable(
                f"The store {settings.store_path} cannot be opened: it is a folder; name a file "
                "in it (--store, POLOS_STORE)."
            )
        return await SqliteStore.open(
            settings.store_path, settings.synchronous, settings.max_queued
        )
    # Loaded late: a service with a file has no use for it.
    from polos_service.store.nats import Endpoint, NatsStore  # noqa: PLC0415

    endpoint = Endpoint(
        servers=settings.nats_servers,
        credentials=settings.nats_creds,
        nkey=settings.nats_nkey,
    )
    return await NatsStore.open(
        endpoint,
        replicas=settings.nats_replicas,
        claim_timeout=settings.claim_timeout,
        max_queued=settings.max_queued,
    )


def providers(settings: Settings) -> Providers:
    """Return the providers; each is loaded when an agent first needs it."""

    def openai() -> Model:
        # Loaded late: it takes half a second, and not every service needs it.
        from polos_service.models.openai import OpenAI  # noqa: PLC0415

        return OpenAI(
            api_key=settings.openai_api_key,
            base_url=settings.openai_base_url,
            keys=settings.provider_keys,
        )

    def scripted() -> Model:
        from polos_service.models.scripted import Scripted  # noqa: PLC0415

        return Scripted()

    return Providers({"openai": openai, "scripted": scripted})
