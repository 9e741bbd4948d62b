"""A worker process, as its supervisor sees it."""

from __future__ import annotations

import asyncio
import json
import math
import signal
from asyncio.subprocess import Process
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Self

from polos_client.errors import PolosError
from polos_service import child, logs
from polos_service.supervisor.pipes import LinePipe

STOP_SECONDS = 15.0
"""Seconds beyond the grace in which a worker has to end. After them it is killed, which loses
nothing that is stored."""

LOOK_SECONDS = 1.0
"""Seconds between two checks whether a worker gives signs of life."""

log = logs.get_logger(__name__)


class WorkerFailedError(PolosError):
    """A worker ended before it served; the message says why.

    Attributes:
        code: its exit code, as a shell has it: 128 and the number of the signal that ended it.

    """

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.code = code


class Worker:
    """One process. Made by `start`.

    Attributes:
        number: its place among the workers, from 1.

    """

    def __init__(self, number: int, print_line: Callable[[bytes], None]) -> None:
        """Prepare, inside the running loop; `print_line` takes what the process prints."""
        loop = asyncio.get_running_loop()
        self.number = number
        self._begun = loop.time()
        self._silent = 0.0
        self._failure: str | None = None
        self._serving: asyncio.Future[list[str]] = loop.create_future()
        self._lifeline = LinePipe(self._hear, longest=math.inf)

        def labelled(line: bytes) -> None:
            print_line(b"worker=%d %s\n" % (number, line))

        self._output = LinePipe(labelled), LinePipe(labelled)
        self._process: Process

    @classmethod
    async def start(
        cls,
        number: int,
        targets: Sequence[str],
        listen: str,
        environment: Mapping[str, str],
        print_line: Callable[[bytes], None],
    ) -> Self:
        """Start a process that serves the targets at an address that it shares."""
        worker = cls(number, print_line)
        out, err = worker._output
        lifeline = worker._lifeline
        try:
            worker._process = await child.serve(
                targets,
                *("--listen", listen, "--lifeline", str(lifeline.child_end)),
                environment=environment,
                stdout=out.child_end,
                stderr=err.child_end,
                pass_fds=(lifeline.child_end,),
            )
        finally:
            for pipe in (out, err, lifeline):
                pipe.started()
        return worker

    @property
    def pid(self) -> int:
        """The process."""
        return self._process.pid

    @property
    def age(self) -> float:
        """Seconds since it was started."""
        return asyncio.get_running_loop().time() - self._begun

    async def serving(self) -> Sequence[str]:
        """Wait until it serves; return what a service prints then.

        Raises:
            WorkerFailedError: it ended before.

        """
        ended = asyncio.ensure_future(self.ended())
        either: set[asyncio.Future[Any]] = {self._serving, ended}
        try:
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        finally:
            ended.cancel()
        if self._serving.done():
            return self._serving.result()
        code = self._process.returncode or 0
        told = self._failure or f"A worker ended with {child.how_ended(code)} before it served."
        raise WorkerFailedError(told, code if code >= 0 else 128 - code)

    async def ended(self) -> str:
        """Wait until the process has ended and all that it printed is handed on; return how."""
        code = await self._process.wait()
        for pipe in (self._lifeline, *self._output):
            pipe.empty()
        return child.how_ended(code)

    async def watch(self, silence: float) -> None:
        """Kill the process if it serves, and gives no sign of life for `silence` seconds.

        They are counted by looks: while the whole machine or this process is paused, none passes.
        """
        while self._process.returncode is None and self._silent <= silence:
            await asyncio.sleep(LOOK_SECONDS)
            self._silent += LOOK_SECONDS if self._serving.done() else 0
        if self._process.returncode is None:
            log.error("worker_hangs", worker=self.number, pid=self.pid, seconds=silence)
            self.kill()
            await self._process.wait()

    async def stop(self, grace: float) -> None:
        """Ask the process to end, and kill it if it does not."""
        child.signal_to(self._process, signal.SIGTERM)
        ended = asyncio.ensure_future(self.ended())
        if (await asyncio.wait({ended}, timeout=grace + STOP_SECONDS))[1]:
            log.error("worker_does_not_stop", worker=self.number, pid=self.pid)
            self.kill()
        await ended

    def kill(self) -> None:
        """End the process at once."""
        child.signal_to(self._process, signal.SIGKILL)

    def _hear(self, line: bytes) -> None:
        self._silent = 0.0
        if not line:
            return
        told = json.loads(line)
        self._failure = told.get("failed")
        if "serves" in told and not self._serving.done():
            self._serving.set_result(told["serves"])
