"""`polos serve --reload`: the service in a child process, started anew when its code changes.

A run that the old process leaves is resumed by the new one, as after any restart.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from asyncio.subprocess import Process
from pathlib import Path

import typer
from watchfiles import PythonFilter, awatch

from polos_service import child
from polos_service.addresses import unix_path
from polos_service.child import signal_to
from polos_service.cli.exits import DONE
from polos_service.config import Settings

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

STOP_SECONDS = 10.0
"""Seconds that a process gets to end in; what is on disk survives that it is killed."""


class Reloader:
    """The parent of the service's processes, of which there is one at a time."""

    def __init__(self, target: str, settings: Settings) -> None:
        """Prepare to serve what `polos serve TARGET` does."""
        self._target = target
        self._listen = with_port(settings.listen)
        self._folder = Path(target).resolve().parent if target.endswith(".py") else Path.cwd()
        # Who edits does not wait for runs: they go on in the next process. The store's address
        # may hold a password, which has no place among a process's arguments.
        self._environment = (
            {"POLOS_GRACE": "0", **os.environ}
            | {"POLOS_STORE": settings.store}
            | settings.transport_variables
        )
        self._stopping = asyncio.Event()
        self._child: Process | None = None
        self._replaced: Process | None = None

    async def run(self) -> int:
        """Serve until a signal comes, and return the exit code."""
        loop = asyncio.get_running_loop()
        for number in SIGNALS:
            loop.add_signal_handler(number, self._stop)
        changes = awatch(self._folder, watch_filter=PythonFilter(), stop_event=self._stopping)
        change = asyncio.ensure_future(anext(changes, None))
        await asyncio.sleep(0)  # now it watches, and misses nothing that happens from here on
        typer.echo(f"Watching the Python files in {self._folder}.", err=True)
        while not self._stopping.is_set():
            self._child = await self._start()
            ended = asyncio.ensure_future(self._tell_end(self._child))
            await change
            await self._end(self._child, ended)
            change = asyncio.ensure_future(anext(changes, None))
        await change
        return DONE

    async def _start(self) -> Process:
        return await child.serve(
            self._target, "--listen", self._listen, environment=self._environment
        )

    async def _tell_end(self, child: Process) -> None:
        """Wait for a process, and say that it has ended if nobody asked for it."""
        code = await child.wait()
        if self._replaced is not child and not self._stopping.is_set():
            typer.echo(
                f"The service ended with exit code {code}. It restarts after the next change.",
                err=True,
            )

    async def _end(self, child: Process, ended: asyncio.Future[None]) -> None:
        """End a process, kindly first."""
        self._replaced = child
        if not self._stopping.is_set():
            typer.echo("A file has changed: restarting.", err=True)
            signal_to(child, signal.SIGTERM)
        if (await asyncio.wait([ended], timeout=STOP_SECONDS))[1]:
            signal_to(child, signal.SIGKILL)
            await ended

    def _stop(self) -> None:
        """Stop for good, and pass each signal on: the second one does not wait for runs."""
        self._stopping.set()
        if self._child is not None:
            signal_to(self._child, signal.SIGTERM)


def with_port(listen: str) -> str:
    """Return the address with a free port for port 0: each process must have the same."""
    host, _, port = listen.rpartition(":")
    if unix_path(listen) is not None or int(port):
        return listen
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.create_server((host.strip("[]"), 0), family=family) as free:
        return f"{host}:{free.getsockname()[1]}"
