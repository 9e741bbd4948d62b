"""The path of a Unix socket, held by one process: gRPC would take it from a living one."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import socket
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from polos_service.listening import ListenError, told

PRIVATE = 0o177
"""The umask under which a socket is made: only its user may connect."""

ALIVE = (0, errno.EAGAIN, errno.EINPROGRESS)
"""Results of a connection to a socket that somebody listens at, be it busy or stopped."""

IN_USE = "another process listens there. Stop it, or choose another path (--listen, POLOS_LISTEN)."
"""Why a path is refused that is in use."""


class UnixSocket:
    """The path, from when it is held until it is released.

    A lock file beside it, which the kernel unlocks when its process dies, keeps two processes
    that start at the same time apart, and one that starts from one that is about to end.
    """

    def __init__(self, path: Path) -> None:
        """Hold the path; what a dead process has left there is removed.

        Raises:
            ListenError: a living process has it, or no socket can be there.

        """
        self._path = path
        self._lock_path = path.with_name(f"{path.name}.lock")
        try:
            self._lock = locked(self._lock_path)
        except BlockingIOError:
            raise ListenError(f"Cannot listen on unix:{path}: {IN_USE}") from None
        except OSError as error:
            raise self._refusal(error) from None
        try:
            self._clear()
        except BaseException as error:
            self._unlock()
            if isinstance(error, OSError):
                raise self._refusal(error) from None
            raise

    def release(self) -> None:
        """Let others have the path; a second time does nothing."""
        if self._lock >= 0:
            with contextlib.suppress(OSError):
                self._path.unlink()
            self._unlock()

    def _clear(self) -> None:
        """Remove the socket of a process that has died."""
        with socket.socket(socket.AF_UNIX) as one:
            one.settimeout(0)
            found = one.connect_ex(os.fspath(self._path))
        if found in ALIVE:
            raise ListenError(f"Cannot listen on unix:{self._path}: {IN_USE}")
        if found == errno.ENOENT and not self._path.is_symlink():
            return
        if not stat.S_ISSOCK(self._path.lstat().st_mode):
            raise ListenError(
                f"Cannot listen on unix:{self._path}: something else than a socket is there. "
                "Remove it, or choose another path (--listen, POLOS_LISTEN)."
            )
        if found != errno.ECONNREFUSED:
            raise OSError(found, os.strerror(found))
        self._path.unlink()

    def _unlock(self) -> None:
        with contextlib.suppress(OSError):
            self._lock_path.unlink()
        os.close(self._lock)
        self._lock = -1

    def _refusal(self, error: OSError) -> ListenError:
        return ListenError(
            f"Cannot listen on unix:{self._path}: {told(error)}. The path needs an existing folder "
            "in which the service may create files, and at most about 100 bytes."
        )


def locked(path: Path) -> int:
    """Return a descriptor of the file, with a lock that ends with this process.

    Raises:
        BlockingIOError: another process has it.
        OSError: the file cannot be opened.

    """
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if same_file(descriptor, path):
                return descriptor
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)  # its former holder has removed it meanwhile


def same_file(descriptor: int, path: Path) -> bool:
    """Return whether the path still names the open file."""
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False


@contextmanager
def private() -> Iterator[None]:
    """Make sockets that only their user may connect to."""
    before = os.umask(PRIVATE)
    try:
        yield
    finally:
        os.umask(before)
