"""The service of `make demo`: `polos serve` in a process that can be killed and started again."""

from __future__ import annotations

import asyncio
import os
import sysconfig
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

AGENTS = Path(__file__).with_name("demo_agent.py")
START_SECONDS = 60
STOP_SECONDS = 20


class DemoError(Exception):
    """The demo could not do what it is there to show."""


class Service:
    """The service, on a store that outlives its processes.

    Attributes:
        address: where it listens, from its first start on.

    """

    def __init__(self, folder: str, environment: Mapping[str, str]) -> None:
        """Keep the store in `folder`, and reach the model with `environment`."""
        self.address = "127.0.0.1:0"
        self._folder = Path(folder)
        self._environment = {**os.environ, **environment}
        self._process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        """Start a process, and wait until it listens.

        Raises:
            DemoError: it ended instead, or needs longer than START_SECONDS.

        """
        log = self._folder / "service.log"
        with log.open("ab") as stderr:
            self._process = await asyncio.create_subprocess_exec(
                *(Path(sysconfig.get_path("scripts"), "polos"), "serve", AGENTS),
                *("--listen", self.address, "--store", f"sqlite://{self._folder}/polos.db"),
                env=self._environment,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=stderr,
            )
        assert self._process.stdout is not None  # noqa: S101 - it is a pipe
        line = b""
        with suppress(TimeoutError):
            async with asyncio.timeout(START_SECONDS):
                line = await self._process.stdout.readline()
        if b" listens on " not in line:
            said = await asyncio.to_thread(log.read_text)
            raise DemoError(f"the service did not start; it said:\n{said}")
        self.address = line.decode().split()[-1]

    async def kill(self) -> None:
        """End the process as `kill -9` does."""
        assert self._process is not None  # noqa: S101 - it was started
        with suppress(ProcessLookupError):
            self._process.kill()
        await self._process.wait()

    async def stop(self) -> None:
        """Ask the process to end; kill it if it has not after STOP_SECONDS."""
        if self._process is None:
            return
        with suppress(ProcessLookupError):
            self._process.terminate()
        try:
            async with asyncio.timeout(STOP_SECONDS):
                await self._process.wait()
        except TimeoutError:
            await self.kill()
