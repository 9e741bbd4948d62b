"""Text on its way out of the process: who has some never waits for a reader, and never fails."""

from __future__ import annotations

import atexit
import contextlib
import fcntl
import io
import os
import sys
import threading
import time
from collections.abc import Callable
from queue import SimpleQueue

from typing_extensions import Buffer

HELD_LIMIT = 8 * 1024 * 1024
"""Bytes that wait to be written; what comes while so many wait is dropped, and counted."""

OVERHEAD = 128
"""Bytes that a piece counts beyond its own, so that empty lines have a bound, too."""

LINE_BYTES = 64 * 1024
"""Bytes up to which a line that is printed is handed over whole."""

FLUSH_SECONDS = 1.0
"""Seconds that the end of the process waits for what is not written yet."""

FIRST_FREE = 3
"""The lowest file descriptor that is not a standard stream."""

RETRY_SECONDS = 0.02
"""Seconds between two attempts at a file that is not ready, and does not block."""

STOPPING = "Stopping. Unfinished runs resume at the next start."
"""What a service prints on standard output when it is asked to stop: the log stays a log."""


class Outlet:
    """A thread that writes, in order, what others hand over."""

    def __init__(self, write: Callable[[bytes], None], name: str) -> None:
        """Start the thread; `write` may block and raise."""
        self._write = write
        self._queue: SimpleQueue[bytes | threading.Event | None] = SimpleQueue()
        self._lock = threading.RLock()  # reentrant: a destructor may print while we hold it
        self._held = 0
        self._dropped = 0
        threading.Thread(target=self._run, name=name, daemon=True).start()
        atexit.register(self.flush)

    def put(self, data: bytes) -> None:
        """Hand over bytes, whole lines at best; they are dropped while too many wait."""
        size = len(data) + OVERHEAD
        with self._lock:
            if self._held + size > HELD_LIMIT:
                self._dropped += 1
                return
            self._held += size
        self._queue.put(data)

    def flush(self, timeout: float = FLUSH_SECONDS) -> bool:
        """Wait until what was handed over is written; return whether it is."""
        written = threading.Event()
        self._queue.put(written)
        return written.wait(timeout)

    def close(self) -> None:
        """End the thread once what was handed over is written; what comes later is lost."""
        self.flush()
        atexit.unregister(self.flush)
        self._queue.put(None)

    def _run(self) -> None:
        while (piece := self._queue.get()) is not None:
            if isinstance(piece, threading.Event):
                piece.set()
                continue
            lost = not self._written(piece)
            with self._lock:
                self._held -= len(piece) + OVERHEAD
                self._dropped += lost
                dropped = self._dropped
            if dropped and not lost and self._written(f"{dropped} lines were dropped.\n".encode()):
                with self._lock:
                    self._dropped -= dropped

    def _written(self, data: bytes) -> bool:
        try:
            self._write(data)
        except BaseException:  # noqa: BLE001 - a stream may be an object of anybody's
            return False
        return True


class _Raw(io.RawIOBase):
    """What a program takes for the file behind a descriptor; it never blocks."""

    def __init__(self, outlet: Outlet, fd: int) -> None:
        self._outlet = outlet
        self._fd = fd

    def write(self, data: Buffer) -> int:
        """Hand the bytes over."""
        piece = bytes(data)
        self._outlet.put(piece)
        return len(piece)

    def writable(self) -> bool:
        """Return True."""
        return True

    def fileno(self) -> int:
        """Return the descriptor, for the child processes of a tool."""
        return self._fd

    def isatty(self) -> bool:
        """Return whether a person reads it."""
        return os.isatty(self._fd)


def to_file(fd: int) -> Callable[[bytes], None]:
    """Return a function that writes to what the descriptor is now, whoever closes it later."""
    own = fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, FIRST_FREE)

    def write(data: bytes) -> None:
        rest = memoryview(data)
        while rest:
            try:
                rest = rest[os.write(own, rest) :]
            except BlockingIOError:
                time.sleep(RETRY_SECONDS)

    return write


class Standard:
    """Standard output and error of this process, taken over: nobody waits for their readers.

    What anybody prints goes through the outlets, too, as long as `sys.stdout` and `sys.stderr`
    are what this has put there. Closed, or replaced by a tool, they are lost to it alone.
    """

    def __init__(self) -> None:
        self._out = Outlet(to_file(1), "polos-stdout")
        self.err = Outlet(to_file(2), "polos-stderr")
        self._streams = (text(1, self._out), text(2, self.err))
        sys.stdout, sys.stderr = self._streams

    def say(self, line: str) -> None:
        """Print a line on standard output."""
        self._out.put(f"{line}\n".encode(errors="backslashreplace"))

    def flush(self) -> None:
        """Wait a moment until everything is written, and take back what a tool has replaced."""
        sys.stdout, sys.stderr = self._streams  # the interpreter flushes them at its end
        for stream, outlet in zip(self._streams, (self._out, self.err), strict=True):
            with contextlib.suppress(ValueError):  # a tool has closed it
                stream.flush()
            outlet.flush()


def text(fd: int, outlet: Outlet) -> io.TextIOWrapper:
    """Return a text stream for a descriptor whose lines go through an outlet."""
    return io.TextIOWrapper(
        io.BufferedWriter(_Raw(outlet, fd), LINE_BYTES),
        encoding="utf-8",
        errors="backslashreplace",
        line_buffering=True,
    )


def to_current_stderr(data: bytes) -> None:
    """Write to whatever is standard error now: notebooks and tests put objects in its place."""
    with contextlib.suppress(AttributeError):  # None, where there is no standard error
        sys.stderr.write(data.decode(errors="replace"))
        sys.stderr.flush()
