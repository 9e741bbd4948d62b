"""A file that takes the log of a program, and of the service in it."""

from __future__ import annotations

import logging
import os
import re
from pathlib import Path

from polos_service import logs
from polos_service.config import SettingsInvalidError
from polos_service.outlet import Outlet

FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"
"""A line of what the program logs through `logging`."""

COLOURS = re.compile(rb"\x1b\[[\d;]*m")
"""What a terminal takes for colours; the service logs with them where it was begun at one."""


class LogFile:
    """Takes what the root logger and the service log, in place of where that went before."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        """Begin; lines are added to a file that exists.

        Raises:
            SettingsInvalidError: the file cannot be opened.

        """
        try:
            self._file = Path(path).open("ab", buffering=0)  # noqa: SIM115 - until `close`
            self._handler = logging.FileHandler(path, encoding="utf-8", errors="backslashreplace")
        except OSError as error:
            raise SettingsInvalidError(
                f"The log file {os.fspath(path)} cannot be opened: {error.strerror}."
            ) from error
        self._handler.setFormatter(logging.Formatter(FORMAT))
        root = logging.getLogger()
        self._before = root.handlers[:]
        root.handlers[:] = [self._handler]
        self._outlet = Outlet(self._write, "polos-log-file")
        logs.write_to(self._outlet)

    def close(self) -> None:
        """Give both logs back."""
        logs.write_elsewhere(self._outlet)
        self._outlet.close()
        logging.getLogger().handlers[:] = self._before
        self._handler.close()
        self._file.close()

    def _write(self, data: bytes) -> None:
        self._file.write(COLOURS.sub(b"", data))
