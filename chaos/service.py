"""The service under test: one process after the other, on the same port and store."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from chaos.process import PATIENCE, Process, free_port, inherited, listens


class Service(Process):
    """The service.

    Attributes:
        port: where each process listens.

    """

    def __init__(self, folder: Path, store: str, environment: dict[str, str]) -> None:
        """Serve from the store; keep everything else in `folder`."""
        super().__init__(folder / "output")
        self.port = free_port()
        self._marks = folder / "marks"
        self._store = store
        self._environment = inherited() | environment | {"CHAOS_MARKS": str(self._marks)}

    async def start(self, faults: str = "") -> bool:
        """Start a process; return whether it came to listen before it died."""
        command = (
            *(sys.executable, "-m", "chaos.launch", "serve", "chaos.app"),
            *("--listen", f"127.0.0.1:{self.port}", "--store", self._store),
        )
        await self.spawn(command, self._environment | {"CHAOS_FAULTS": faults})
        async with asyncio.timeout(PATIENCE):
            while self.alive:
                if await listens(self.port):
                    return True
                await asyncio.sleep(0.02)
        return False

    def marks(self) -> list[tuple[str, str]]:
        """Return the faults that struck inside the processes so far: place and run."""
        if not self._marks.exists():
            return []
        lines = self._marks.read_text().splitlines()
        return [(place, run_id) for place, _, run_id in (one.partition(" ") for one in lines)]


def environment(provider: str, bug: str, ledger: Path) -> dict[str, str]:
    """Return what a service is told: where its model is, what is wrong with it, where it writes."""
    return {
        "CHAOS_BUG": bug,
        "CHAOS_LEDGER": str(ledger),
        "OPENAI_BASE_URL": provider,
        "POLOS_GRACE": "0.2",
        "POLOS_WAIT_THRESHOLD_SECONDS": "0.05",
    }
