"""The place of one worker: when its process ends, another one takes its place."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from polos_service import logs
from polos_service.supervisor.worker import Worker, WorkerFailedError

PAUSES = (0.2, 30.0)
"""Seconds before a process that ended is started again: at first, and at most. They double while
processes end young."""

YOUNG = 30.0
"""Seconds of a process's life after which its end is not blamed on its start."""

log = logs.get_logger(__name__)


class Slot:
    """One of the workers.

    Attributes:
        worker: the process that has the place; None while there is none.

    """

    def __init__(self, start: Callable[[], Awaitable[Worker]]) -> None:
        """Prepare; `start` starts a process."""
        self.worker: Worker | None = None
        self._start = start
        self._new: Worker | None = None
        self._filling = asyncio.Lock()

    async def keep(self) -> None:
        """Fill the place whenever it is empty, for ever."""
        pause, longest = PAUSES
        while True:
            worker = self.worker or await self._fill()
            how = await worker.ended()
            if worker is not self.worker:
                continue  # it was replaced
            pause = PAUSES[0] if worker.age > YOUNG else pause
            told = {"worker": worker.number, "pid": worker.pid, "how": how}
            log.warning("worker_ended", **told, restarts_after=pause)
            await asyncio.sleep(pause)
            pause = min(2 * pause, longest)
            if worker is self.worker:
                self.worker = None

    async def replace(self, grace: float) -> None:
        """Put a new process into the place; the one before ends once the new one serves.

        Raises:
            WorkerFailedError: the new one ended before it served; the one before goes on.

        """
        async with self._filling:
            self._new = new = await self._start()
            try:
                await new.serving()
            finally:
                self._new = None
            old, self.worker = self.worker, new
        log.info("worker_serves", worker=new.number, pid=new.pid)
        if old is not None:
            await old.stop(grace)

    def give_up(self) -> None:
        """Let `replace` fail if its process does not serve yet."""
        if self._new is not None:
            self._new.kill()

    async def _fill(self) -> Worker:
        async with self._filling:
            if self.worker is None:
                self.worker = await self._start()
        worker = self.worker
        try:
            await worker.serving()
        except WorkerFailedError as error:
            log.warning("worker_failed", worker=worker.number, pid=worker.pid, error=str(error))
        else:
            log.info("worker_serves", worker=worker.number, pid=worker.pid)
        return worker
