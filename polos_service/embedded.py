"""Polos: service and client in one process, for scripts and tests."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from polos_client.calls.client import PolosClient
from polos_client.define.agent import Agent
from polos_service.config import Settings
from polos_service.server import Service


class Polos(PolosClient):
    """A client whose service runs in this process, for as long as `async with` does.

        async with Polos() as polos:
            result = await agent.run(polos, "Hello")

    An agent is loaded when it is first used. `agents` loads them at once, which a store
    that outlives the process needs: unfinished runs of an earlier one are resumed.
    """

    def __init__(self, agents: Iterable[Agent] = (), *, store: str | None = None) -> None:
        """Prepare; nothing starts before `async with`.

        Args:
            agents: loaded from the start.
            store: `sqlite:///ABSOLUTE/PATH` or `nats://HOST:4222`; None: a temporary file,
                gone at the end.

        """
        super().__init__("127.0.0.1:0")
        self._agents = tuple(agents)
        self._store = store
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self._service: Service | None = None

    async def __aenter__(self) -> Self:
        """Start the service.

        Raises:
            DefinitionError: two agents have one id.
            SettingsInvalidError: the store's address, or a variable, cannot be used.
            StoreUnavailable: the store cannot be opened.

        """
        try:
            settings = Settings.load(listen="127.0.0.1:0", store=self._store or self._temporary())
            self._service = await Service.start(settings, self._agents)
        except BaseException:
            self._clean_up()
            raise
        self.address = f"127.0.0.1:{self._service.port}"
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Stop the service; runs that have not finished go on with the next on their store."""
        await self.close()
        if self._service is not None:
            await self._service.stop(0)
            self._service = None
        self._clean_up()

    def prepare(self, agent: Agent) -> None:
        """Load an agent that is about to run.

        Raises:
            DefinitionError: another agent has its id.

        """
        self._running().load(agent)

    async def channel(self) -> Any:
        """Return the channel to the service in this process."""
        self._running()
        return await super().channel()

    def _running(self) -> Service:
        if self._service is None:
            raise RuntimeError("Polos runs inside `async with Polos() as polos:` only.")
        return self._service

    def _clean_up(self) -> None:
        if self._folder is not None:
            self._folder.cleanup()

    def _temporary(self) -> str:
        self._folder = tempfile.TemporaryDirectory(prefix="polos-")
        return f"sqlite://{Path(self._folder.name).resolve() / 'runs.db'}"
