"""The system under test: `polos serve --workers`, and what is done to its processes."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import sys
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager, suppress
from pathlib import Path
from typing import Self

from nats.js import JetStreamContext

from chaos.cluster.logs import jetstream
from chaos.cluster.plan import CLAIM_TIMEOUT, Blow
from chaos.places import Place
from chaos.process import PATIENCE, Process, free_port, inherited
from chaos.service import environment

SERVES = re.compile(r"worker_serves +pid=(\d+) worker=(\d+)")
"""What the supervisor prints of a worker that serves."""

STORES = re.compile(r"nats_server_serves +pid=(\d+) url=nats://127\.0\.0\.1:(\d+)")
"""What it prints of its nats-server."""


class WorkersSystem(Process):
    """The command, with what it starts; an async context manager.

    Attributes:
        port: where the service is.
        problems: what it did that it must not.

    """

    def __init__(self, folder: Path, workers: int, provider: str, bug: str, ledger: Path) -> None:
        """Keep everything in `folder`."""
        super().__init__(folder / "output")
        self.port = free_port()
        self.problems: list[str] = []
        self._seed = folder / "polos" / "nats" / "user.nk"
        self._workers = workers
        self._begin = 0
        self._environment = (
            inherited()
            | environment(provider, bug, ledger)
            | {
                "CHAOS_FAULTS": "",
                "CHAOS_MARKS": str(folder / "marks"),
                "POLOS_CLAIM_TIMEOUT": str(CLAIM_TIMEOUT),
                "XDG_DATA_HOME": str(folder),
            }
        )

    async def __aenter__(self) -> Self:
        try:
            await self.start()
        except BaseException:
            await self.end()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.end()

    async def start(self) -> None:
        """Start the command, and return when all workers serve."""
        self._begin = len(self.output())
        await self.spawn(
            (
                *(sys.executable, "-m", "chaos.launch", "serve", "chaos.app"),
                *("--listen", f"127.0.0.1:{self.port}", "--workers", str(self._workers)),
            ),
            self._environment,
        )
        await self.until(lambda: len(self.pids()) == self._workers, "all workers serve")

    def pids(self) -> dict[int, int]:
        """Return the newest process of each worker that has served, by its number."""
        return {int(number): int(pid) for pid, number in SERVES.findall(self._printed())}

    def stores(self) -> list[tuple[int, int]]:
        """Return the processes of nats-server, each with its port."""
        return [(int(pid), int(port)) for pid, port in STORES.findall(self._printed())]

    def jetstream(self) -> AbstractAsyncContextManager[JetStreamContext]:
        """Connect to the nats-server."""
        return jetstream([self.stores()[-1][1]], self._seed)

    async def suffer(self, blow: Blow) -> None:
        """Let a blow happen, and return when all are up again."""
        await SUFFERED[blow.place](self, blow)

    async def until(self, holds: Callable[[], bool], what: str) -> None:
        """Wait until it holds.

        Raises:
            RuntimeError: the command ended, or it takes too long.

        """
        end = time.monotonic() + 2 * PATIENCE  # it may be several processes, one after the other
        while not holds():
            if not self.alive or time.monotonic() > end:
                raise RuntimeError(f"waited in vain: {what}:\n{self.output()}")
            await asyncio.sleep(0.05)

    def _printed(self) -> str:
        """Return what the newest command has printed."""
        return self.output()[self._begin :]


def tell(pid: int, number: signal.Signals) -> None:
    """Send a signal to a process, if it is there."""
    with suppress(ProcessLookupError):
        os.kill(pid, number)


def worker_of(system: WorkersSystem, blow: Blow) -> tuple[int, int]:
    """Return number and process of the worker that a blow is for."""
    pids = sorted(system.pids().items())
    return pids[blow.victim % len(pids)]


async def kill_worker(system: WorkersSystem, blow: Blow) -> None:
    """Kill a worker, and wait for the next."""
    number, pid = worker_of(system, blow)
    tell(pid, signal.SIGKILL)
    await system.until(lambda: system.pids()[number] != pid, f"another worker {number}")


async def pause_worker(system: WorkersSystem, blow: Blow) -> None:
    """Stop a worker for a while: it comes back as one that does not know what it lost."""
    _, pid = worker_of(system, blow)
    tell(pid, signal.SIGSTOP)
    await asyncio.sleep(blow.seconds)
    tell(pid, signal.SIGCONT)


async def renew_workers(system: WorkersSystem, _: Blow) -> None:
    """Have all workers replaced."""
    before = set(system.pids().values())
    system.send(signal.SIGHUP)
    await system.until(lambda: not before & set(system.pids().values()), "only new workers")


async def kill_store(system: WorkersSystem, _: Blow) -> None:
    """Kill nats-server, and wait for the next."""
    before = len(system.stores())
    tell(system.stores()[-1][0], signal.SIGKILL)
    await system.until(lambda: len(system.stores()) > before, "another nats-server")


async def pause_store(system: WorkersSystem, blow: Blow) -> None:
    """Stop nats-server for a while."""
    pid, _ = system.stores()[-1]
    tell(pid, signal.SIGSTOP)
    await asyncio.sleep(blow.seconds)
    tell(pid, signal.SIGCONT)


async def kill_supervisor(system: WorkersSystem, _: Blow) -> None:
    """Kill the supervisor, and start the command again at once."""
    await system.end()
    await system.start()


async def restart_supervisor(system: WorkersSystem, _: Blow) -> None:
    """Ask it to stop, and start the command again."""
    system.send(signal.SIGTERM)
    if not await system.ended(PATIENCE):
        system.problems.append(f"stop: the service went on for {PATIENCE:g} s after SIGTERM")
        await system.end()
    await system.start()


SUFFERED: Mapping[Place, Callable[[WorkersSystem, Blow], Awaitable[None]]] = {
    Place.WORKER_KILL: kill_worker,
    Place.WORKER_PAUSE: pause_worker,
    Place.WORKERS_RENEW: renew_workers,
    Place.STORE_KILL: kill_store,
    Place.STORE_PAUSE: pause_store,
    Place.SUPERVISOR_KILL: kill_supervisor,
    Place.SUPERVISOR_RESTART: restart_supervisor,
}
"""What is done, by place."""
