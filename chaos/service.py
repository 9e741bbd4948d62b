"""The service under test: one process after the other, on the same port and store."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

PATIENCE = 30.0
"""Seconds in which a process must listen, or end."""


class Service:
    """The service.

    Attributes:
        port: where each process listens.
        store: the file of its store.
        ledger: the file in which its tools write down their effects.

    """

    def __init__(self, folder: Path, provider: str, bug: str) -> None:
        """Keep everything in `folder`."""
        self.port = free_port()
        self.store = folder / "runs.db"
        self.ledger = folder / "ledger"
        self._marks = folder / "marks"
        self._output = folder / "output"
        self._provider = provider
        self._bug = bug
        self._process: asyncio.subprocess.Process | None = None

    async def start(self, faults: str) -> bool:
        """Start a process; return whether it came to listen before it died."""
        with self._output.open("ab") as output:
            self._process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "chaos.launch", "serve", "chaos.app"),
                *("--listen", f"127.0.0.1:{self.port}", "--store", f"sqlite://{self.store}"),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                cwd=ROOT,
                env=self._environment(faults),
            )
        async with asyncio.timeout(PATIENCE):
            while self._process.returncode is None:
                if await listens(self.port):
                    return True
                await asyncio.sleep(0.02)
        return False

    async def ended(self, patience: float) -> bool:
        """Wait so long for the process to end; return whether it did."""
        if self._process is None:
            return True
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._process.wait(), patience)
        return self._process.returncode is not None

    async def end(self, number: signal.Signals = signal.SIGKILL) -> None:
        """End the process with a signal, if there is one."""
        if self._process is None:
            return
        if self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self._process.send_signal(number)
        if not await self.ended(PATIENCE):
            raise TimeoutError(f"the service did not end:\n{self.output()}")

    def marks(self) -> list[tuple[str, str]]:
        """Return the faults that struck inside the processes so far: place and run."""
        if not self._marks.exists():
            return []
        lines = self._marks.read_text().splitlines()
        return [(place, run_id) for place, _, run_id in (one.partition(" ") for one in lines)]

    def output(self) -> str:
        """Return what its processes printed."""
        return self._output.read_text(errors="replace")

    def _environment(self, faults: str) -> dict[str, str]:
        inherited = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("POLOS_", "OPENAI_")) and not name.lower().endswith("_proxy")
        }
        return inherited | {
            "CHAOS_BUG": self._bug,
            "CHAOS_FAULTS": faults,
            "CHAOS_LEDGER": str(self.ledger),
            "CHAOS_MARKS": str(self._marks),
            "OPENAI_BASE_URL": self._provider,
            "POLOS_GRACE": "0.2",
        }


def free_port() -> int:
    """Return a port that is free now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


async def listens(port: int) -> bool:
    """Return whether somebody listens at the port."""
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return False
    writer.close()
    return True
