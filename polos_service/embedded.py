"""Polos: service and client in one process, for scripts and tests."""

from __future__ import annotations

import asyncio
import os
import tempfile
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Self

from polos_client.calls.client import PolosClient
from polos_client.calls.connection import Definition
from polos_client.define.agent import Agent
from polos_client.define.registry import DEFINED
from polos_client.define.workflow import Workflow
from polos_client.errors import DefinitionError
from polos_client.sync import blocked_loop
from polos_client.unbuilt import refuse
from polos_service import logs
from polos_service.addresses import MAX_PORT
from polos_service.catalog import DuplicateError
from polos_service.config import Settings, SettingsInvalidError
from polos_service.logfile import LogFile
from polos_service.models.providers import Providers
from polos_service.server import Service
from polos_service.signals import StopSignals

log = logs.get_logger(__name__)

HOST = "127.0.0.1"
"""Where the service in this process listens: no other machine reaches it."""

REDEFINED = (
    "If this one replaces the other, as in a notebook, stop the service and start it again: "
    "`stop` and `start` of its Polos."
)
"""What to do about a definition whose id is taken by an earlier one."""


class Polos(PolosClient):
    """A client whose service runs in this process, for as long as the `async with` block.

        async with Polos() as polos:
            result = await agent.run(polos, "Hello")

    A notebook calls `start` and `stop` instead, in cells of their own.

    Every agent and workflow that this process has defined can be started, by itself or by its
    id; it is loaded when it is first used. `agents` are loaded from the start.
    """

    def __init__(
        self,
        agents: Iterable[Agent | Workflow] = (),
        *,
        store: str | os.PathLike[str] | None = None,
        port: int | None = None,
        max_concurrent_workflows: int | None = None,
        log_file: str | os.PathLike[str] | None = None,
        channels: Any = None,
        project_id: str | None = None,  # noqa: ARG002 - credentials alone choose a project
        api_url: str | None = None,
        api_key: str | None = None,
        deployment_id: str | None = None,
    ) -> None:
        """Prepare; nothing starts before `async with`, `start` or `serve`.

        Args:
            agents: the agents and workflows that are loaded from the start.
            store: where runs are kept: a `pathlib.Path` of an SQLite file, which is created if it
                is missing, `sqlite:///ABSOLUTE/PATH` or `nats://HOST:4222`; None: a temporary
                file, gone at the end.
            port: where on 127.0.0.1 to listen; None: POLOS_PORT, else a free one.
            max_concurrent_workflows: runs worked on at once, from 1 to 100000; None:
                POLOS_MAX_RUNS, else 100.
            log_file: takes what `logging` and the service log, from the start to the end.
            channels: not built yet.
            project_id: accepted and not used: only credentials choose a project.
            api_url: ignored, with a warning: `PolosClient` is for another service.
            api_key: ignored, with a warning: a service in this process asks for none.
            deployment_id: ignored, with a warning: a service has one deployment.

        Raises:
            DefinitionError: `channels` was given, which is not built yet; `port` is not a port;
                or `agents` has something that is neither an Agent nor a Workflow.

        """
        refuse("Polos", {"channels": channels})
        _warn_of_ignored(api_url=api_url, api_key=api_key, deployment_id=deployment_id)
        if port is not None and not (type(port) is int and 0 <= port <= MAX_PORT):
            raise DefinitionError(f"the port must be from 0 to {MAX_PORT}, not {port!r}")
        super().__init__(f"{HOST}:0", tls=False)
        self._agents = tuple(agents)
        for one in self._agents:
            if not isinstance(one, Agent | Workflow):
                raise DefinitionError(
                    f"{one!r:.80} is not an Agent or a Workflow; name all other arguments"
                )
        self._store = store if isinstance(store, str | None) else file_address(Path(store))
        self._port = port
        self._max_runs = max_concurrent_workflows
        self._log_path = log_file
        self._log_file: LogFile | None = None
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self._service: Service | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    async def __aenter__(self) -> Self:
        """Start, as `start` does."""
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        """Stop, as `stop` does."""
        await self.stop()

    async def start(self) -> None:
        """Start the service.

        Raises:
            DefinitionError: two agents or workflows have one id.
            ListenError: the port is taken.
            RuntimeError: it is running already.
            SettingsInvalidError: the store's address, the log file or a variable cannot be used.
            StoreUnavailable: the store cannot be opened.

        """
        if self._service is not None:
            raise RuntimeError("Polos is running already.")
        try:
            if self._log_path is not None:
                self._log_file = LogFile(self._log_path)
            settings = Settings.load(
                listen=f"{HOST}:{self._port if self._port is not None else default_port()}",
                store=self._store or self._temporary(),
                max_runs=self._max_runs,
            )
            # What the environment says of TLS is for a service that others reach.
            settings.tls_cert = settings.tls_key = settings.tls_client_ca = None
            self._service = await Service.start(
                settings, self._agents, DEFINED, credentials=False, models=self._models()
            )
        except BaseException:
            self._clean_up()
            raise
        self._loop = asyncio.get_running_loop()
        self.address = f"{HOST}:{self._service.port}"

    async def stop(self) -> None:
        """Stop the service; runs that have not finished go on with the next on their store.

        Raises:
            RuntimeError: it was started in another event loop.

        """
        if self._service is not None and self._loop is not asyncio.get_running_loop():
            raise RuntimeError(
                "Polos was started in another event loop. Stop it there: what "
                "`wait(polos.start())` has started, `wait(polos.stop())` stops."
            )
        await self.close()
        if self._service is not None:
            await self._service.stop(0)
            self._service = None
        self._clean_up()

    async def serve(self) -> None:
        """Start, wait for SIGINT or SIGTERM, and stop; in the main thread only.

        The log says the address. A second signal ends the process at once. In the end the
        handlers of both signals are those from before.

        Raises:
            PolosError, RuntimeError: as `start` does.

        """
        asked = StopSignals()
        try:
            async with self:
                log.info("service_started", **self._running().about())
                await asked.first()
                log.info("service_stopping", grace=0)
            log.info("service_stopped")
        finally:
            asked.close()

    def prepare(self, definition: Definition) -> None:
        """Load an agent or a workflow that is about to run.

        Raises:
            DefinitionError: another definition has its id.
            RuntimeError: the service is not running, or this call blocks it.

        """
        service = self._running()
        if isinstance(definition, Agent | Workflow):
            try:
                service.load(definition)
            except DuplicateError as error:
                raise DefinitionError(f"{error} {REDEFINED}") from None

    async def channel(self) -> Any:
        """Return the channel to the service in this process.

        Raises:
            RuntimeError: it is not running, or this call blocks it.

        """
        self._running()
        return await super().channel()

    def _models(self) -> Providers | None:
        """Return the providers of models; None: as the settings say. For subclasses."""
        return None

    def _running(self) -> Service:
        if self._service is None:
            raise RuntimeError(
                "Polos is not running. Use it inside `async with Polos() as polos:`, or call "
                "`await polos.start()` first; without an event loop, use it inside "
                "`with SyncClient(Polos()) as polos:`."
            )
        if self._loop is not None and blocked_loop.get() is self._loop:
            raise RuntimeError(
                "Polos runs in the event loop of this thread, and a call of polos.sync blocks it: "
                "nothing would answer. Await the async API instead (`await agent.run(polos, "
                "...)`), make the call in another thread (`await asyncio.to_thread(...)`), or "
                "start Polos with `wait(polos.start())`, which gives it another event loop."
            )
        return self._service

    def _clean_up(self) -> None:
        if self._folder is not None:
            self._folder.cleanup()
        if self._log_file is not None:
            self._log_file.close()
            self._log_file = None

    def _temporary(self) -> str:
        self._folder = tempfile.TemporaryDirectory(prefix="polos-")
        return f"sqlite://{Path(self._folder.name).resolve() / 'runs.db'}"


def file_address(path: Path) -> str:
    """Return the address of a store in an SQLite file; `~` at its start is the home folder."""
    return f"sqlite://{path.expanduser().absolute()}"


def default_port() -> int:
    """Return the port of a `Polos` without one: POLOS_PORT, else 0, which is any free port.

    Raises:
        SettingsInvalidError: the variable is not a port.

    """
    value = os.environ.get("POLOS_PORT") or "0"
    if not (value.isascii() and value.isdecimal() and int(value) <= MAX_PORT):
        raise SettingsInvalidError(f"POLOS_PORT must be a port from 0 to {MAX_PORT}, not {value!r}")
    return int(value)


def _warn_of_ignored(**given: object) -> None:
    ignored = [name for name, value in given.items() if value is not None]
    if ignored:
        warnings.warn(
            f"Polos ignores {', '.join(ignored)}: it is a service of its own, in this process. "
            "PolosClient is for another one.",
            stacklevel=3,
        )
