"""Which of some files a service has imported: its reloader asks, over a socket."""

from __future__ import annotations

import asyncio
import json
import socket
import sys
import threading
from collections.abc import Iterable
from contextlib import suppress

ANSWER_SECONDS = 2.0
"""Seconds in which a service that is not held up answers."""


def answer_in_thread(number: int) -> None:
    """Answer on the socket with this file descriptor for as long as the process lives."""
    threading.Thread(target=answer, args=[number], name="polos-imported", daemon=True).start()


def answer(number: int) -> None:
    """Answer each line, a JSON array of paths, with those that are imported; until the end."""
    with socket.socket(fileno=number) as connection, connection.makefile("rw") as lines:
        for line in lines:
            lines.write(f"{json.dumps(imported(json.loads(line)))}\n")
            lines.flush()


def imported(paths: Iterable[str]) -> list[str]:
    """Return those of the paths from which this process has imported a module."""
    modules = list(sys.modules.values())  # another thread may import meanwhile
    files = {getattr(module, "__file__", None) for module in modules}
    return [path for path in paths if path in files]


class Importer:
    """A service that is asked, as its reloader knows it.

    Attributes:
        child_end: the file descriptor for the service.

    """

    def __init__(self) -> None:
        """Make a pair of sockets."""
        self._ours, self._theirs = socket.socketpair()
        self._ours.setblocking(False)  # noqa: FBT003 - its only parameter
        self.child_end = self._theirs.fileno()

    def started(self) -> None:
        """Close the service's end here, once the service has it."""
        self._theirs.close()

    def close(self) -> None:
        """Ask no more."""
        self._ours.close()

    async def has_imported(self, paths: list[str]) -> list[str]:
        """Return those of the paths that are imported; all of them if the service does not say."""
        loop = asyncio.get_running_loop()
        heard = b""
        with suppress(TimeoutError, OSError):
            async with asyncio.timeout(ANSWER_SECONDS):
                await loop.sock_sendall(self._ours, f"{json.dumps(paths)}\n".encode())
                while more := await loop.sock_recv(self._ours, 65536):
                    heard += more
                    if heard.endswith(b"\n"):
                        found: list[str] = json.loads(heard)
                        return found
        return paths
