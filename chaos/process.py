"""A process that the harness starts, stops for a while, kills and starts again."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import random
import signal
import socket
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

PATIENCE = 60.0
"""Seconds in which a process must listen, or end."""

PORTS = (20_000, 32_000)

BLOCK = 50
"""Ports that a process takes at a time."""

LOCKS = Path(tempfile.gettempdir()) / f"polos-ports-{os.getuid()}"
"""A file for each block of ports; whoever gives the ports out holds its lock."""

_mine: list[int] = []


class Process:
    """One process after the other, whose output goes into one file."""

    def __init__(self, output: Path) -> None:
        """Write what they print to `output`."""
        self._output = output
        self._process: asyncio.subprocess.Process | None = None

    @property
    def alive(self) -> bool:
        """Whether one was started that has not ended."""
        return self._process is not None and self._process.returncode is None

    async def spawn(self, command: Sequence[str], environment: Mapping[str, str]) -> None:
        """Start one."""
        with self._output.open("ab") as output:
            self._process = await asyncio.create_subprocess_exec(
                *command,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                cwd=ROOT,
                env=environment,
            )

    async def ended(self, patience: float) -> bool:
        """Wait so long for the process to end; return whether it did."""
        if self._process is None:
            return True
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._process.wait(), patience)
        return self._process.returncode is not None

    def send(self, number: signal.Signals) -> None:
        """Send a signal, if there is a process."""
        if self._process is not None and self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self._process.send_signal(number)

    async def end(self, number: signal.Signals = signal.SIGKILL) -> None:
        """End the process with a signal, if there is one."""
        self.send(number)
        if not await self.ended(PATIENCE):
            raise TimeoutError(f"the process did not end:\n{self.output()}")

    def output(self) -> str:
        """Return what the processes printed."""
        return self._output.read_text(errors="replace") if self._output.exists() else ""


def inherited() -> dict[str, str]:
    """Return the environment without what would configure service, provider or proxies."""
    return {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("POLOS_", "OPENAI_")) and not name.lower().endswith("_proxy")
    }


def free_port() -> int:
    """Return a port that is free now, and that nobody else who asks here is given.

    It is below those that the system gives to outgoing connections, which come and go.

    Raises:
        RuntimeError: other processes have all ports.

    """
    while True:
        if not _mine:
            _mine.extend(block_of_ports())
        port = _mine.pop()
        if is_free(port):
            return port


def block_of_ports() -> range:
    """Return ports that are this process's until it ends: it holds the lock of their file."""
    LOCKS.mkdir(exist_ok=True)
    starts = list(range(*PORTS, BLOCK))
    random.shuffle(starts)
    for start in starts:
        file = os.open(LOCKS / str(start), os.O_CREAT | os.O_RDWR, 0o600)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(file)
        else:
            return range(start, start + BLOCK)
    raise RuntimeError(f"every port of {PORTS} is taken by a process that has a lock in {LOCKS}")


def is_free(port: int) -> bool:
    """Return whether nobody listens on the port."""
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


async def listens(port: int) -> bool:
    """Return whether somebody listens on the port."""
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return False
    writer.close()
    return True
