"""The parent of the workers, from the command's start to the signal that ends it."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Mapping, Sequence
from functools import partial

from polos_service import logs
from polos_service.addresses import unix_path
from polos_service.cancelling import cancel_until_done
from polos_service.config import Settings, SettingsInvalidError, data_folder, named
from polos_service.listening import check_reach
from polos_service.outlet import STOPPING, Standard
from polos_service.supervisor.address import held
from polos_service.supervisor.nats import NatsServer
from polos_service.supervisor.slot import Slot
from polos_service.supervisor.worker import Worker, WorkerFailedError

SILENCE = 10.0
"""Seconds beyond the claim timeout after which a worker without a sign of life is killed: others
have its runs by then."""

ABANDONED = "the workers go on as they are; correct the error, and send SIGHUP again"
"""What the log advises when a new worker fails before it serves."""

log = logs.get_logger(__name__)


class Supervisor:
    """The parent of `settings.workers` processes that serve the same apps."""

    def __init__(self, targets: Sequence[str], settings: Settings, standard: Standard) -> None:
        """Prepare.

        Raises:
            SettingsInvalidError: the store is a file, or the address is a Unix socket.

        """
        if unix_path(settings.listen) is not None:
            raise SettingsInvalidError(
                f"{named('listen')}: a Unix socket belongs to one process, which excludes "
                "--workers. Name HOST:PORT, or leave out --workers (POLOS_WORKERS)."
            )
        if "store" in settings.model_fields_set and not settings.nats_servers:
            raise SettingsInvalidError(
                f"{named('store')}: a SQLite file belongs to one process, which excludes "
                "--workers. Leave the store out, and the workers share a nats-server of their "
                "own; or name NATS servers, for example nats://127.0.0.1:4222."
            )
        self._targets = targets
        self._settings = settings
        self._workers = settings.workers or 1
        self._standard = standard
        self._at_terminal = logs.person_reads()
        self._nats: NatsServer | None = None
        self._address = ""
        self._environment: Mapping[str, str] = {}
        self._alive: dict[Worker, asyncio.Task[None]] = {}
        self._tasks: list[asyncio.Task[None]] = []
        self._slots: list[Slot] = []
        self._stopping = asyncio.Event()
        self._renewal = asyncio.Event()
        self._code = 0

    async def run(self) -> int:
        """Serve until a signal comes, and return the exit code.

        Raises:
            ListenError: the address cannot be listened at, or only with TLS.
            StoreUnavailable: the store cannot be opened.
            WorkerFailedError: the first worker ended before it served.

        """
        logs.log_to_stderr(self._settings.log_level, as_json=self._settings.log_format == "json")
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self._stop, number)
        loop.add_signal_handler(signal.SIGHUP, self._hang_up)
        stopping = asyncio.ensure_future(self._stopping.wait())
        check_reach(self._settings.listen, self._settings)
        with held(self._settings.listen) as self._address:
            work = asyncio.create_task(self._work())
            try:
                await asyncio.wait({work, stopping}, return_when=asyncio.FIRST_COMPLETED)
                if work.done():
                    work.result()
            finally:
                await cancel_until_done([work, *self._tasks])
                await self._end()
        return self._code

    async def _work(self) -> None:
        """Start everything, and keep it running."""
        self._environment = await self._open_store()
        first = await self._start(1)
        self._say(*await first.serving())
        log.info("worker_serves", worker=1, pid=first.pid)
        numbers = range(1, self._workers + 1)
        self._slots = [Slot(partial(self._start, number)) for number in numbers]
        self._slots[0].worker = first
        self._tasks += [asyncio.create_task(slot.keep()) for slot in self._slots]
        self._tasks.append(asyncio.create_task(self._renew()))
        await asyncio.gather(*self._tasks)

    async def _open_store(self) -> Mapping[str, str]:
        """Start a NATS server unless others are named; return the workers' environment."""
        options = self._settings.option_variables
        if self._settings.nats_servers:
            return environment({"POLOS_STORE": self._settings.store} | options)
        sync = self._settings.synchronous == "FULL"
        self._nats = nats = NatsServer(data_folder() / "nats", self._standard.err.put, sync=sync)
        await nats.start()
        self._tasks.append(asyncio.create_task(nats.keep()))
        store = {"POLOS_STORE": nats.url, "POLOS_NATS_NKEY": str(nats.seed)}
        return environment(
            options | store | {"POLOS_NATS_CREDS": None, "POLOS_NATS_REPLICAS": None}
        )

    async def _start(self, number: int) -> Worker:
        worker = await Worker.start(
            number, self._targets, self._address, self._environment, self._standard.err.put
        )
        self._alive[worker] = asyncio.create_task(self._watch(worker))
        return worker

    async def _watch(self, worker: Worker) -> None:
        await worker.watch(self._settings.claim_timeout + SILENCE)
        del self._alive[worker]

    async def _renew(self) -> None:
        """Replace one worker after the other whenever it is asked for."""
        while True:
            await self._renewal.wait()
            self._renewal.clear()
            log.info("workers_restart")
            try:
                for slot in self._slots:
                    await slot.replace(self._settings.grace)
            except WorkerFailedError as error:
                if not self._renewal.is_set():
                    log.warning("restart_abandoned", error=str(error), advice=ABANDONED)

    async def _end(self) -> None:
        """End all workers at once, and then what they store in."""
        await asyncio.gather(*(worker.stop(self._settings.grace) for worker in self._alive))
        await cancel_until_done(list(self._alive.values()))
        if self._nats is not None:
            await self._nats.stop()

    def _say(self, listens: str, *rest: str) -> None:
        """Print what a service prints when it serves, with the workers and where their data are."""
        data = f" (nats-server; data in {self._nats.folder})" if self._nats else ""
        workers = "1 worker" if self._workers == 1 else f"{self._workers} workers"
        for line in (listens, f"  {workers}", *rest):
            self._standard.say(f"{line}{data}" if line.startswith("  store ") else line)

    def _stop(self, number: int) -> None:
        """Stop; the second time without grace."""
        if self._stopping.is_set():
            self._code = 128 + number
            for worker in self._alive:
                worker.kill()
            if self._nats is not None:
                self._nats.kill()
            return
        self._standard.say(STOPPING)
        self._stopping.set()

    def _hang_up(self) -> None:
        """Replace the workers, from the first one on, unless the terminal is gone."""
        if self._at_terminal and not os.isatty(2):
            self._stop(signal.SIGHUP)
        else:
            self._renewal.set()
            for slot in self._slots:
                slot.give_up()


def environment(changes: Mapping[str, str | None]) -> dict[str, str]:
    """Return this process's environment for a worker, with variables set, or removed for None."""
    given = {"POLOS_WORKERS": None, **changes}
    kept = {name: value for name, value in os.environ.items() if name.upper() not in given}
    return kept | {name: value for name, value in given.items() if value is not None}
