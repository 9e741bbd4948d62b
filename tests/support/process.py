"""The service as a user starts it: the command `polos serve` in a process of its own.

    async with ServiceProcess(app, tmp_path / "runs.db") as service:
        client = PolosClient(service.address)
        ...
        await service.kill()
        await service.start()  # on the same port and store

Whatever a test does, no process outlives the `async with`.
"""

from __future__ import annotations

import asyncio
import re
import signal
import sysconfig
from collections.abc import Callable
from pathlib import Path
from typing import Self

from chaos.process import free_port, inherited

POLOS = Path(sysconfig.get_path("scripts")) / "polos"
"""The command, as the installation of the package puts it beside the interpreter."""

PATIENCE = 60.0
"""Seconds in which a process starts, says what is waited for, or ends; else the test fails."""

PIECE = 1_000_000
"""Bytes of a process's output that are read at once."""


def environment(**variables: str) -> dict[str, str]:
    """Return this process's environment without what configures a service, and these."""
    return inherited() | variables


async def until(holds: Callable[[], bool], what: str) -> None:
    """Wait until `holds()`; fail with `what` was waited for after PATIENCE."""
    try:
        async with asyncio.timeout(PATIENCE):
            while not holds():
                await asyncio.sleep(0.005)
    except TimeoutError:
        raise AssertionError(f"waited {PATIENCE:g} s in vain: {what}") from None


class ServiceProcess:
    """`polos serve` of one app on one store: one process at a time, each on the same port.

    The store is the path of a SQLite file, or an address as `--store` takes it; with None, the
    command is not told of one. It gets the further options.

    Attributes:
        lines: what all its processes printed, on standard output and standard error.
        port: where each of them listens.

    """

    def __init__(
        self,
        app: Path | str,
        store: Path | str | None,
        *options: str,
        cwd: Path | str | None = None,
        **env: str,
    ) -> None:
        self.lines: list[str] = []
        self.port = free_port()
        self._app = str(app)
        self._options = options
        if store is not None:
            address = store if isinstance(store, str) else f"sqlite://{store}"
            self._options = ("--store", address, *options)
        self._cwd = cwd
        self._environment = environment(**env)
        self._process: asyncio.subprocess.Process | None = None
        self._reading: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        try:
            await self.start()
        except BaseException:
            await self.kill()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.kill()

    @property
    def address(self) -> str:
        """Where it listens, as `POLOS_ADDRESS` takes it."""
        return f"127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        """The process that runs."""
        assert self._process is not None
        return self._process.pid

    @property
    def output(self) -> str:
        """What all its processes printed."""
        return "\n".join(self.lines)

    def _command(self) -> tuple[str | Path, ...]:
        """Return the program that is started, with what stands before its command."""
        return (POLOS,)

    async def start(self) -> None:
        """Start a process, and return when it listens."""
        assert self._process is None, "the process before this one was not ended"
        printed = len(self.lines)
        self._process = await asyncio.create_subprocess_exec(
            *self._command(),
            *("serve", self._app),
            *("--listen", self.address),
            *self._options,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            env=self._environment,
            cwd=self._cwd,
        )
        self._reading = asyncio.create_task(self._read(self._process))
        await self.said(rf" listens (?:on|at) {re.escape(self.address)}$", after=printed)
        await self.said("^  store ", after=printed)  # the last line it prints by itself

    async def said(self, pattern: str, after: int = 0) -> str:
        """Wait for a line that has this pattern, past the first `after` lines; return it."""
        reading = self._reading
        assert reading is not None

        def found() -> list[str]:
            return [line for line in self.lines[after:] if re.search(pattern, line)]

        await until(lambda: bool(found()) or reading.done(), f"{pattern!r} in the output")
        assert found(), f"the service ended without saying {pattern!r}:\n{self.output}"
        return found()[0]

    def send(self, number: signal.Signals) -> None:
        """Send the process a signal."""
        assert self._process is not None
        self._process.send_signal(number)

    async def ended(self) -> int:
        """Wait until the process has ended by itself or by a signal; return its exit code."""
        assert self._process is not None
        assert self._reading is not None
        await asyncio.wait({self._reading}, timeout=PATIENCE)
        assert self._reading.done(), f"the service did not end:\n{self.output}"
        code = await self._process.wait()
        self._process = None
        return code

    async def kill(self) -> None:
        """End the process with SIGKILL, if there is one: it gets to do nothing any more."""
        if self._process is None:
            return
        if self._process.returncode is None:
            self._process.kill()
        await self.ended()

    async def _read(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdout is not None
        line = bytearray()  # longer than any buffer, if a test makes it so
        while piece := await process.stdout.read(PIECE):
            *ends, rest = piece.split(b"\n")
            for end in ends:
                self.lines.append((line + end).decode(errors="replace"))
                line.clear()
            line += rest
        if line:
            self.lines.append(line.decode(errors="replace"))
