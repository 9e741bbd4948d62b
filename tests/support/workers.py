"""`polos serve --workers` as a user starts it, on a nats-server of its own."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

from chaos.workers.system import SERVES, STORES
from tests.support.process import PATIENCE, POLOS, ServiceProcess, environment, until

CLAIM_TIMEOUT = "2"
"""Seconds after which a dead worker's runs pass to another one."""


class Workers(ServiceProcess):
    """The supervisor, with what it starts; its data are in the app's folder."""

    def __init__(self, app: Path, number: int, **env: str) -> None:
        self._number = number
        super().__init__(
            app,
            None,
            *("--workers", str(number)),
            **{"XDG_DATA_HOME": str(app.parent), "POLOS_CLAIM_TIMEOUT": CLAIM_TIMEOUT, **env},
        )

    async def start(self) -> None:
        """Start it, and return when all workers serve."""
        printed = len(self.lines)
        await super().start()
        for number in range(1, self._number + 1):
            await self.said(rf"worker_serves .*worker={number}$", after=printed)

    @property
    def workers(self) -> list[int]:
        """The newest process of each worker, in their order."""
        newest = {int(number): int(pid) for pid, number in SERVES.findall(self.output)}
        return [newest[number] for number in sorted(newest)]

    @property
    def nats(self) -> int:
        """The newest process of nats-server."""
        return int(STORES.findall(self.output)[-1][0])

    async def all_end(self) -> None:
        """Wait until none of the processes is there any more."""
        await end_of(*self.workers, self.nats)


async def end_of(*pids: int) -> None:
    """Wait until none of these processes is there any more."""
    await until(lambda: not any(map(exists, pids)), f"{pids} end")


def exists(pid: int) -> bool:
    """Return whether a process runs, or nobody has waited for it."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


async def serve(app: Path, *options: str, data: str = ".") -> tuple[int, str]:
    """Run `polos serve` to its end, which must come; return its exit code and standard error."""
    process = await asyncio.create_subprocess_exec(
        POLOS,
        *("serve", str(app), *options),
        env=environment(XDG_DATA_HOME=str(app.parent / data)),
        stdin=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
    )
    async with asyncio.timeout(PATIENCE):
        _, said = await process.communicate()
    assert process.returncode is not None
    return process.returncode, said.decode()
