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
"""The first port that may be given out, and the one behind the last. The system gives those above
to outgoing connections, which come and go."""

BLOCK = 50
"""Ports that a process reserves at a time."""

LOCKS = Path(tempfile.gettempdir()) / f"polos-ports-{os.getuid()}"
"""A file for each block of ports; the process that reserves the block holds its lock."""

_reserved: list[int] = []
"""Ports that this process has reserved and not given out yet."""


class Process:
    """A program that is started any number of times, one process at a time.

    What all of them print goes into one file.
    """

    def __init__(self, output: Path) -> None:
        """Prepare; the file is `output`."""
        self._output = output
        self._process: asyncio.subprocess.Process | None = None

    @property
    def alive(self) -> bool:
        """Whether a process was started and has not ended."""
        return self._process is not None and self._process.returncode is None

    async def spawn(self, command: Sequence[str], environment: Mapping[str, str]) -> None:
        """Start a process; the one before must have ended."""
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
        """Wait at most `patience` seconds for the process to end; return whether it did."""
        if self._process is None:
            return True
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._process.wait(), patience)
        return self._process.returncode is not None

    def send(self, number: signal.Signals) -> None:
        """Send a signal, if a process is alive."""
        if self._process is not None and self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self._process.send_signal(number)

    async def end(self, number: signal.Signals = signal.SIGKILL) -> None:
        """End the process with a signal, if one is alive.

        Raises:
            TimeoutError: it did not end within PATIENCE.

        """
        self.send(number)
        if not await self.ended(PATIENCE):
            raise TimeoutError(f"the process did not end in {PATIENCE:g} s:\n{self.output()}")

    def output(self) -> str:
        """Return what the processes printed."""
        return self._output.read_text(errors="replace") if self._output.exists() else ""


def inherited() -> dict[str, str]:
    """Return this process's environment without what configures a service, provider or proxy."""
    return {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("POLOS_", "OPENAI_", "AZURE_OPENAI_"))
        and not name.endswith(("_API_KEY", "_BASE_URL"))
        and not name.lower().endswith("_proxy")
    }


def free_port() -> int:
    """Return a port that is free now, and that this function returns to no other caller.

    Raises:
        RuntimeError: other processes have reserved all ports.

    """
    while True:
        if not _reserved:
            _reserved.extend(reserve_block())
        port = _reserved.pop()
        if is_free(port):
            return port


def reserve_block() -> range:
    """Return ports that stay reserved until this process ends: it holds the lock of their file.

    Raises:
        RuntimeError: other processes have reserved all ports.

    """
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
    first, end = PORTS
    raise RuntimeError(
        f"processes that hold locks in {LOCKS} have reserved all ports from {first} to {end - 1}; "
        "end some of them"
    )


def is_free(port: int) -> bool:
    """Return whether a server can listen at the port."""
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
