"""The composition root: nothing else wires anything."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Iterable, Mapping
from contextlib import suppress
from importlib.metadata import version
from types import MappingProxyType

from polos_client.define.agent import Agent
from polos_client.define.workflow import Workflow
from polos_client.errors import StoreUnavailable
from polos_service import logs
from polos_service.access import Access
from polos_service.addresses import unix_path
from polos_service.agents.runnable import AgentRunnable
from polos_service.api.grpc.server import GrpcServer
from polos_service.cancelling import cancel_until_done
from polos_service.catalog import Catalog
from polos_service.config import Settings, SettingsInvalidError, named
from polos_service.listening import check_reach, parts, warn_if_open
from polos_service.models.allowed import Allowed
from polos_service.models.built_in import BUILT_IN
from polos_service.models.configured import ProviderConfig
from polos_service.models.prices import Prices, PricesInvalidError
from polos_service.models.providers import Providers
from polos_service.runs.budget import Budgets
from polos_service.runs.clock import SystemClock
from polos_service.runs.context import RunContext
from polos_service.runs.executor import Executor
from polos_service.runs.retention import retain
from polos_service.runs.runnable import Runnable
from polos_service.service import OtherRuns, Runs
from polos_service.sidethread import SideThread
from polos_service.store.access import Store
from polos_service.store.sqlite import SqliteStore
from polos_service.tools.local import in_thread
from polos_service.tools.watchdog import Watchdog
from polos_service.workflows.means import Means
from polos_service.workflows.runnable import WorkflowRunnable

BLOCKED_LIMIT = 1.0
"""Seconds for which the loop may be held before the watchdog names who holds it."""

CALLS_GRACE = 1.0
"""Seconds for calls to end by themselves, once readers were sent away."""

WAITING = (
    "this agent or workflow is not loaded: serve it (with Polos, import its module or pass it to "
    "`Polos([...])`), or end the runs with `polos runs cancel`"
)
"""What the log advises about runs whose agent or workflow is not loaded."""

MISSPELT = "if its id is misspelt in POLOS_AGENT_PROJECTS, the agent that is meant is for everybody"
"""What the log advises about an agent that is limited to projects and not loaded."""

log = logs.get_logger(__name__)

PART_SECONDS = 10.0
"""Seconds that a part of the service gets to stop; the rest stops without it then."""

HEALTH_PERIOD = 1.0
"""Seconds between two looks whether the store answers."""

CODE_PERIOD = 10.0
"""Seconds between two looks for queued runs whose code is not loaded."""


class Service:
    """A service that runs, made by `start`.

    Attributes:
        catalog: what is loaded.
        address: where it listens, `HOST:PORT` or `unix:/PATH`.

    """

    def __init__(
        self,
        settings: Settings,
        store: Store,
        definitions: Iterable[Agent | Workflow],
        defined: Mapping[str, Agent | Workflow],
        *,
        shared_port: bool,
        credentials: bool,
        models: Providers | None,
    ) -> None:
        self._shared_port = shared_port
        self._clock = clock = SystemClock()
        self._chores: list[asyncio.Task[None]] = []
        self._missing: set[str] = set()
        """Ids of which it was told that runs wait for them and that they are not loaded."""
        self._store = store
        self._max_retries = settings.max_retries
        self._providers = models or providers(settings)
        self._side_thread = SideThread()
        self._defined = defined
        self._told: set[str] = set()
        self.catalog = Catalog(defined=self._find_defined, projects=settings.agent_projects)
        self._others = OtherRuns(store, show_inputs=settings.show_inputs)
        self._means = Means(clock, self._resume, self.catalog.find, self._others)
        for definition in definitions:
            self.load(definition)
        quotas = settings.quotas
        budgets = Budgets(quotas, store.usage, clock)
        self._executor = Executor(
            store,
            self.catalog,
            clock,
            settings.max_runs,
            budgets,
            threshold=settings.wait_threshold_seconds,
        )
        self._runs = Runs(
            store,
            self.catalog,
            self._executor,
            clock,
            self._side_thread,
            quotas=quotas,
            show_inputs=settings.show_inputs,
        )
        self._access = Access(settings, store.access, off=not credentials)
        self._server = GrpcServer(
            settings,
            self._runs,
            self.catalog,
            self._side_thread,
            self._access,
            shared_port=shared_port,
        )
        self.address = settings.listen
        self._store_kind = "nats" if settings.nats_servers else "sqlite"
        self._watchdog = Watchdog(self.catalog.tool_code, BLOCKED_LIMIT)

    @property
    def port(self) -> int:
        """The port at which it listens; 0 for a Unix socket."""
        return 0 if unix_path(self.address) else parts(self.address)[1]

    def about(self) -> dict[str, str | int | bool]:
        """Return what the log tells operators about a service that has started; no secrets."""
        return {
            "version": version("polos-grpc"),
            "address": self.address,
            "store": self._store_kind,
            "agents": len(self.catalog.agents()),
            "workflows": len(self.catalog.workflows()),
            "access": self._access.identities.on,
        }

    def load(self, definition: Agent | Workflow) -> None:
        """Load an agent or a workflow; the same one again changes nothing.

        Raises:
            DefinitionError: another one has its id, it has what JSON cannot hold, or it names a
                provider that this process does not have.

        """
        self.catalog.add(self._runnable(definition))

    def lacks(self, agent: Agent) -> str:
        """Return what the model calls of a loaded agent lack; empty if nothing is known to."""
        missing = self._providers[agent.provider].lacks(agent.provider_base_url)
        return f"calls to {agent.provider} will fail: {missing}" if missing else ""

    def _find_defined(self, runnable_id: str) -> Runnable | None:
        found = self._defined.get(runnable_id)
        return None if found is None else self._runnable(found)

    def _runnable(self, definition: Agent | Workflow) -> Runnable:
        if isinstance(definition, Workflow):
            return WorkflowRunnable(definition, self._means, self._max_retries)
        return self._agent_runnable(definition)

    async def _resume(  # noqa: PLR0917 - a port of workflows
        self,
        run: RunContext,
        run_id: str,
        step_key: str,
        data_json: str,
        request_id: str,
        workflow_id: str,
    ) -> object:
        return await self._runs.waits.answer(
            run.project, f"run:{run.run_id}", run_id, step_key, data_json, request_id, workflow_id
        )

    def _agent_runnable(self, agent: Agent) -> AgentRunnable:
        runnable = AgentRunnable(agent, self._providers, self._means, self._side_thread)
        if agent.id not in self._told and (missing := self.lacks(agent)):
            self._told.add(agent.id)
            log.warning("model_calls_will_fail", agent=agent.id, why=missing)
        return runnable

    @classmethod
    async def start(
        cls,
        settings: Settings,
        definitions: Iterable[Agent | Workflow] = (),
        defined: Mapping[str, Agent | Workflow] = MappingProxyType({}),
        *,
        shared_port: bool = False,
        credentials: bool = True,
        models: Providers | None = None,
    ) -> Service:
        """Open the store, listen, and take up runs: those that a former process left, too.

        Args:
            settings: what the service is started with.
            definitions: the agents and workflows that are loaded from the start.
            defined: by id, those that are loaded when a start or a stored run names them.
            shared_port: whether other processes of this service listen at the address, too.
            credentials: False to ask callers for none, whatever the store and the settings have.
            models: the providers of models; None: as the settings say.

        Raises:
            DefinitionError: two agents or workflows have one id.
            ListenError: the address cannot be listened at, or only with TLS.
            StoreUnavailable: the store cannot be opened or reached, or another process has it.
            TlsError: the certificate or the key cannot be used.

        """
        logs.log_to_stderr(settings.log_level, as_json=settings.log_format == "json")
        if not shared_port:
            check_reach(settings.listen, settings)
        store = await open_store(settings)
        try:
            service = cls(
                settings,
                store,
                definitions,
                defined,
                shared_port=shared_port,
                credentials=credentials,
                models=models,
            )
        except BaseException:
            await store.close()
            raise
        try:
            service.address = service._server.listen()
            await service._begin(settings)
        except BaseException:
            await service.stop(0)
            raise
        return service

    async def _begin(self, settings: Settings) -> None:
        await self._access.start()
        if not self._access.identities.on:
            warn_if_open(settings)
        await self._server.start()
        await self._warn_of_missing_code()
        for agent_id in settings.agent_projects.keys() - self.catalog.keys():
            log.warning("limited_agent_is_not_loaded", agent=agent_id, advice=MISSPELT)
        self._executor.start()
        self._chores.append(asyncio.create_task(self._watch_store(), name="polos-health"))
        if not self._store.shared:  # else others may have the code, and a look costs more
            self._chores.append(asyncio.create_task(self._watch_code(), name="polos-code"))
        if settings.retention is not None:
            self._keep(settings.retention.total_seconds())

    async def stop(self, grace: float) -> None:
        """Stop: refuse starts, give running runs `grace` seconds, hand the rest over.

        Readers stay until then, and are sent away to come back to the next process. A part
        that fails, or takes PART_SECONDS more than it should, is named in the log and left.
        Where others listen at the address, they get all further calls at once.
        """
        self._runs.drain()
        calls = []
        if self._shared_port:
            calls.append(asyncio.create_task(self._server.stop(grace + PART_SECONDS)))
        await ended("chores", cancel_until_done(self._chores))
        await ended("access", self._access.stop())
        await ended("health", self._server.announce_stop())
        await ended("runs", self._executor.stop(grace), grace)
        await ended("room", self._others.room.close())
        self._runs.close()
        await ended("calls", asyncio.gather(self._server.stop(CALLS_GRACE), *calls), CALLS_GRACE)
        self._watchdog.close()
        self._side_thread.close()
        await ended("providers", self._providers.close())
        await ended("store", self._store.close())
        await ended("log", in_thread(logs.flush))

    def _keep(self, seconds: float) -> None:
        self._chores.append(asyncio.create_task(retain(self._store, self._clock, seconds)))

    async def _warn_of_missing_code(self) -> None:
        """Name each agent and workflow once for which runs wait, and which is not loaded.

        Raises:
            StoreUnavailable: the store is away.

        """
        for runnable_id, runs in (await self._store.waiting()).items():
            if runnable_id not in self.catalog and runnable_id not in self._missing:
                self._missing.add(runnable_id)
                log.warning("runs_wait_for_code", runnable=runnable_id, runs=runs, advice=WAITING)

    async def _watch_code(self) -> None:
        """Warn of runs that wait for code since they were parked."""
        while True:
            await self._clock.sleep(CODE_PERIOD)
            with suppress(StoreUnavailable):  # the next look may succeed
                await self._warn_of_missing_code()

    async def _watch_store(self) -> None:
        """Say NOT_SERVING while the store does not answer: others may serve meanwhile."""
        healthy = True
        while True:
            await self._clock.sleep(HEALTH_PERIOD)
            before, healthy = healthy, await self._store.healthy()
            if healthy != before:
                log.warning("store_answers" if healthy else "store_does_not_answer")
                await self._server.tell_health(healthy=healthy)


async def ended(part: str, work: Awaitable[object], seconds: float = 0) -> None:
    """Await the end of a part, for so many seconds and PART_SECONDS; what goes wrong is logged."""
    ending = asyncio.ensure_future(work)
    await asyncio.wait({ending}, timeout=seconds + PART_SECONDS)
    if not ending.done():
        ending.cancel()
        log.error("part_does_not_stop", part=part, seconds=seconds + PART_SECONDS)
    elif not ending.cancelled() and (error := ending.exception()) is not None:
        log.error("part_failed_to_stop", part=part, exc_info=error)


async def open_store(settings: Settings) -> Store:
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
            settings.store_path,
            settings.synchronous,
            settings.max_queued,
            settings.project_weights,
            settings.quotas,
        )
    # Loaded late: a service with a file has no use for it.
    try:
        from polos_service.store.nats import Endpoint, NatsStore  # noqa: PLC0415
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "nats":
            raise
        raise SettingsInvalidError(
            "A store on NATS needs the package nats-py, which is not installed: "
            "pip install 'polos-grpc[nats]'"
        ) from None

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
        weights=settings.project_weights,
        quotas=settings.quotas,
    )


def providers(settings: Settings) -> Providers:
    """Return the providers; each is loaded when an agent first needs it.

    Raises:
        SettingsInvalidError: the price file cannot be used, or an address is not one.

    """
    environment = {**settings.provider_environment}
    if settings.openai_api_key is not None:
        environment["OPENAI_API_KEY"] = settings.openai_api_key.get_secret_value()
    if settings.openai_base_url is not None:
        environment["OPENAI_BASE_URL"] = settings.openai_base_url
    config = ProviderConfig(
        environment=environment,
        keys=settings.provider_keys,
        switches=settings.provider_switches,
        prices=prices(settings),
        allowed=Allowed(settings.provider_allow),
    )
    return Providers(BUILT_IN, config, settings.caller_options)


def prices(settings: Settings) -> Prices:
    """Return the operator's own prices.

    Raises:
        SettingsInvalidError: the file cannot be used.

    """
    if settings.prices is None:
        return Prices()
    try:
        return Prices.load(settings.prices)
    except PricesInvalidError as error:
        raise SettingsInvalidError(f"{named('prices')}: {error}") from None
