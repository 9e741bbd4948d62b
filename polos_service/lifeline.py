"""What a worker tells its supervisor through a pipe: that it serves or why not, and that it lives.

The supervisor's end is in `polos_service/supervisor/worker.py`.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Sequence

from polos_service.tied import tie

BEAT_SECONDS = 1.0
"""Seconds between two signs of life."""

ORPHANED = 1
"""The exit code of a worker whose supervisor is gone."""


class Lifeline:
    """A worker's end of the pipe. The worker ends when nobody has the other end any more."""

    def __init__(self, fd: int) -> None:
        """Take over the pipe with this descriptor."""
        tie()
        os.set_inheritable(fd, False)  # noqa: FBT003 - it takes it by position only
        self._fd = fd
        self._write(b"\n")

    def tell_serving(self, banner: Sequence[str]) -> None:
        """Tell that this worker serves, and what a service prints then."""
        self._tell("serves", banner)
        os.set_blocking(self._fd, False)

    def tell_failure(self, message: str) -> None:
        """Tell why this worker cannot serve."""
        self._tell("failed", message)

    async def beat(self) -> None:
        """Give signs of life, as long as the loop runs."""
        while True:
            await asyncio.sleep(BEAT_SECONDS)
            self._write(b"\n")

    def _tell(self, what: str, value: object) -> None:
        self._write(json.dumps({what: value}).encode() + b"\n")

    def _write(self, data: bytes) -> None:
        try:
            while data:
                data = data[os.write(self._fd, data) :]
        except BlockingIOError:
            return  # the supervisor is stopped, and has signs enough for when it goes on
        except OSError:
            os._exit(ORPHANED)
