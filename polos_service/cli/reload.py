"""`polos serve --reload`: the service in a child process, started anew when its code changes.

A run that the old process leaves is resumed by the new one, as after any restart.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from asyncio.subprocess import Process
from collections.abc import Sequence
from pathlib import Path

import typer
from watchfiles import Change, PythonFilter, awatch

from polos_service import child
from polos_service.addresses import unix_path
from polos_service.child import signal_to
from polos_service.cli.exits import DONE
from polos_service.cli.imported import Importer
from polos_service.config import Settings

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

STOP_SECONDS = 10.0
"""Seconds that a process gets to end in; what is on disk survives that it is killed."""


class Reloader:
    """The parent of the service's processes, of which there is one at a time."""

    def __init__(self, targets: Sequence[str], settings: Settings) -> None:
        """Prepare to serve what `polos serve` does with these targets."""
        self._targets = targets
        self._listen = with_port(settings.listen)
        self._folders = sorted(set(map(folder_of, targets)))
        # Who edits does not wait for runs: they go on in the next process. The store's address
        # may hold a password, which has no place among a process's arguments.
        self._environment = (
            {"POLOS_GRACE": "0", **os.environ}
            | {"POLOS_STORE": settings.store}
            | settings.option_variables
        )
        self._importer = Importer()
        self._stopping = asyncio.Event()
        self._child: Process | None = None
        self._replaced: Process | None = None

    async def run(self) -> int:
        """Serve until a signal comes, and return the exit code."""
        loop = asyncio.get_running_loop()
        for number in SIGNALS:
            loop.add_signal_handler(number, self._stop)
        changes = awatch(*self._folders, watch_filter=PythonFilter(), stop_event=self._stopping)
        change = asyncio.ensure_future(anext(changes, None))
        await asyncio.sleep(0)  # now it watches, and misses nothing that happens from here on
        typer.echo(f"Watching the Python files in {', '.join(map(str, self._folders))}.", err=True)
        while not self._stopping.is_set():
            self._child = await self._start()
            ended = asyncio.ensure_future(self._tell_end(self._child))
            while (changed := await change) and not (file := await self._imported(changed)):
                change = asyncio.ensure_future(anext(changes, None))
            await self._end(self._child, ended, file if changed else "")
            change = asyncio.ensure_future(anext(changes, None))
        await change
        return DONE

    async def _start(self) -> Process:
        self._importer.close()
        self._importer = importer = Importer()
        try:
            return await child.serve(
                self._targets,
                *("--listen", self._listen, "--importer", str(importer.child_end)),
                environment=self._environment,
                pass_fds=(importer.child_end,),
            )
        finally:
            importer.started()

    async def _imported(self, changes: set[tuple[Change, str]]) -> str:
        """Return a file that has changed and that the process has imported, if there is one."""
        found = await self._importer.has_imported(sorted(path for _, path in changes))
        return found[0] if found else ""

    async def _tell_end(self, child: Process) -> None:
        """Wait for a process, and say that it has ended if nobody asked for it."""
        code = await child.wait()
        if self._replaced is not child and not self._stopping.is_set():
            typer.echo(
                f"The service ended with exit code {code}. It restarts after the next change.",
                err=True,
            )

    async def _end(self, child: Process, ended: asyncio.Future[None], changed: str) -> None:
        """End a process, kindly first, because a file has changed or a signal has come."""
        self._replaced = child
        if not self._stopping.is_set():
            typer.echo(f"{shown(changed)} has changed: restarting.", err=True)
            signal_to(child, signal.SIGTERM)
        if (await asyncio.wait([ended], timeout=STOP_SECONDS))[1]:
            signal_to(child, signal.SIGKILL)
            await ended

    def _stop(self) -> None:
        """Stop for good, and pass each signal on: the second one does not wait for runs."""
        self._stopping.set()
        if self._child is not None:
            signal_to(self._child, signal.SIGTERM)


def folder_of(target: str) -> Path:
    """Return the folder of an app whose files are watched."""
    path = Path(target).resolve()
    if path.is_dir():
        return path
    return path.parent if target.endswith(".py") else Path.cwd()


def shown(path: str) -> str:
    """Return a path, from the working folder on if it is there."""
    return os.path.relpath(path) if Path(path).is_relative_to(Path.cwd()) else path


def with_port(listen: str) -> str:
    """Return the address with a free port for port 0: each process must have the same."""
    host, _, port = listen.rpartition(":")
    if unix_path(listen) is not None or int(port):
        return listen
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.create_server((host.strip("[]"), 0), family=family) as free:
        return f"{host}:{free.getsockname()[1]}"
