"""A real nats-server on a free loopback port, and its streams."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Self

from chaos.process import free_port
from polos_service.store import Claim
from polos_service.store.nats import Endpoint, NatsStore
from tests.support.stores import first_claim, new_run, soon

BINARY = shutil.which("nats-server", path=str(Path(sys.executable).parent)) or "nats-server"

PATIENCE = 60.0
"""Seconds in which a server has to come up."""

CLAIM_TIMEOUT = 1.0
"""Seconds of silence after which a replica loses its claims."""


class NatsServer:
    """A server with a folder of its own; it can go away and come back at the same port."""

    def __init__(self, folder: Path, *options: str) -> None:
        self._folder = folder
        self._options = options
        self._process: subprocess.Popen[bytes] | None = None
        self.port = free_port()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def pid(self) -> int:
        """The process of the server that runs."""
        assert self._process is not None
        return self._process.pid

    @property
    def url(self) -> str:
        return f"nats://127.0.0.1:{self.port}"

    def address(self, patience: float = 15.0) -> Endpoint:
        return Endpoint(servers=(self.url,), patience=patience)

    def start(self) -> None:
        """Start it, and return when it answers."""
        command = [BINARY, "-js", "-sd", str(self._folder), "-a", "127.0.0.1"]
        command += ["-p", str(self.port), "--ports_file_dir", str(self._folder), *self._options]
        output = (self._folder / "log").open("ab")
        with output:
            self._process = subprocess.Popen(command, stdout=output, stderr=output)
        self._wait_for_ports()

    def _wait_for_ports(self) -> None:
        assert self._process is not None
        end = time.monotonic() + PATIENCE
        path = self._folder / f"nats-server_{self._process.pid}.ports"
        while time.monotonic() < end:
            try:
                json.loads(path.read_text())
            except (OSError, ValueError):
                time.sleep(0.01)
            else:
                return
        raise TimeoutError((self._folder / "log").read_text())

    def tell(self, number: signal.Signals) -> None:
        """Tell it something, to read its configuration anew, say."""
        assert self._process is not None
        self._process.send_signal(number)

    def stop(self, number: signal.Signals = signal.SIGTERM) -> None:
        """End it; its folder stays."""
        if self._process is not None:
            self._process.send_signal(number)
            self._process.wait(PATIENCE)
            self._process = None


async def replica(server: NatsServer, patience: float = 15.0) -> NatsStore:
    """Open a store that tries each request for so many seconds."""
    return await NatsStore.open(server.address(patience), claim_timeout=CLAIM_TIMEOUT)


async def queued_and_claimed(store: NatsStore, **fields: Any) -> Claim:
    """Create a run and claim it by its work item, as the executor does."""
    await store.create(new_run(**fields))
    return await soon(first_claim(store, {"agent"}))
