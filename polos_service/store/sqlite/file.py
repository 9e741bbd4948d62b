"""The files of a SQLite store: who owns them, who may read them, and what becomes of them.

The owner is found out by the file itself and not by its name: a lock on its inode, which no
link and no deleted lock file gets around. What slips through all the same (a system without
such a lock) is fenced by the owner's token inside the database.

The descriptor that carries the lock is opened before SQLite opens the file, and closed after
SQLite closed it: closing any descriptor of a file drops the POSIX locks that SQLite has on it.
"""

from __future__ import annotations

import os
import stat
import sys
import threading
from pathlib import Path

from filelock import FileLock, Timeout

from polos_service.logs import get_logger

if sys.platform == "linux":
    import fcntl

OWNER_ONLY = 0o600
"""Mode of every file of a store that is made: it holds prompts, results and provider state."""

OWNER_FOLDER = 0o700
"""Mode of a folder that is made for a store."""

OTHERS = 0o077
"""The bits of a mode that let anybody but the owner in."""

HEADER = 24
"""Bytes at the start of a database that never change while it is in use."""

LOG_MAGIC = (b"\x37\x7f\x06\x82", b"\x37\x7f\x06\x83")
"""What a write-ahead log begins with, unless it is empty."""

Identity = tuple[int, int]
"""Device and inode: what a file is, whatever it is called."""

log = get_logger(__name__)

_held: dict[Identity, int] = {}
"""Descriptors of the files that this process has."""

_holding = threading.Lock()


class InUseError(OSError):
    """Another store, in this process or another, has the file open."""


class StoreFile:
    """A database file that is held, from `__init__` until `close`.

    Attributes:
        path: of the database, with every symbolic link resolved.
        descriptor: of the database, to look at its bytes; never opened again, never closed early.
        token: names this opening in the database.

    """

    def __init__(self, path: Path) -> None:
        """Take the file, made if it is missing, and close it to everybody but its owner.

        Raises:
            InUseError: it is open elsewhere.
            OSError: it cannot be made or opened, has a second name, or is not a regular file.

        """
        self.path = Path(os.path.realpath(path))
        self.token = os.urandom(16)
        self._known: dict[Path, Identity] = {}
        self._header = b""
        make_folder(self.path.parent)
        self._lock = FileLock(f"{self.path}.lock", timeout=0, mode=OWNER_ONLY)
        try:
            self._lock.acquire()
        except Timeout:
            raise InUseError(str(path)) from None
        try:
            self.descriptor = hold(self.path)
        except BaseException:
            self._lock.release()
            raise
        self._log = -1

    def remember(self) -> None:
        """Keep in mind which files SQLite has opened; call it when it has read through each.

        Raises:
            OSError: they changed since they were taken.

        """
        self._known = {name: identity(name.stat()) for name in (self.path, *beside(self.path))}
        if self._known[self.path] != identity(os.fstat(self.descriptor)):
            raise OSError("the file was replaced while it was opened")
        close_to_others(self.path)
        self._log = os.open(f"{self.path}-wal", os.O_RDONLY)  # SQLite has no lock on this one
        self._header = os.pread(self.descriptor, HEADER, 0)

    def fault(self) -> str | None:
        """Return what has happened to the files since `remember`, None if nothing has.

        Callers are told it, so it has the files' names and not where they are.
        Costs a few microseconds: it is asked around each commit.
        """
        for name, known in self._known.items():
            try:
                status = name.stat()
            except (FileNotFoundError, NotADirectoryError):
                return f"{name.name} was deleted or moved"
            except OSError as error:
                return f"{name.name} cannot be reached ({error.strerror})"
            if identity(status) != known:
                return f"{name.name} was replaced by another file"
        if os.pread(self.descriptor, HEADER, 0) != self._header:
            return f"{self.path.name} was overwritten: it does not begin as it did"
        if os.pread(self._log, 4, 0) not in (b"", *LOG_MAGIC):
            return f"{self.path.name}-wal was overwritten: it does not begin as a write-ahead log"
        return None

    def close(self) -> None:
        """Let go of the file. SQLite must have closed it."""
        if self._log >= 0:
            os.close(self._log)
        with _holding:
            _held.pop(identity(os.fstat(self.descriptor)))
            os.close(self.descriptor)
        self._lock.release()


def hold(path: Path) -> int:
    """Open the database, made if it is missing, and lock it; return the descriptor.

    Raises:
        InUseError: it is open elsewhere.
        OSError: it cannot be made or opened, has a second name, or is not a regular file.

    """
    with _holding:
        # Before it is opened: to close it again would drop the locks of who has it.
        if path.exists() and identity(path.stat()) in _held:
            raise InUseError(str(path))
        require_plain(path)
        descriptor = opened(path)
        try:
            lock_inode(descriptor, path)
        except BaseException:
            os.close(descriptor)
            raise
        _held[identity(os.fstat(descriptor))] = descriptor
        return descriptor


def let_go_in_child() -> None:
    """Close what a fork has copied: a tool's child must not keep the lock of a dead service."""
    for descriptor in _held.values():
        os.close(descriptor)
    _held.clear()


os.register_at_fork(after_in_child=let_go_in_child)


def opened(path: Path) -> int:
    """Open the file as far as we may: SQLite says best what it cannot do with it."""
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_NONBLOCK, OWNER_ONLY)
    except PermissionError:
        return os.open(path, os.O_RDONLY | os.O_NONBLOCK)


def lock_inode(descriptor: int, path: Path) -> None:
    """Lock the file itself, where the system keeps this lock apart from those of SQLite.

    Raises:
        InUseError: somebody else has the lock.

    """
    if sys.platform == "linux":
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InUseError(str(path)) from None


def require_plain(path: Path) -> None:
    """Raise OSError unless each file is a regular one, without a second name.

    SQLite looks for the write-ahead log beside the name it is given: under another name it
    misses what is in it, and damages the database.
    """
    for name in (path, *beside(path)):
        if name.is_symlink():
            raise OSError(f"{name} is a symbolic link. Put the file itself there")
        if name.exists() and not name.is_file():
            raise OSError(f"{name} is not a regular file")
        if name.exists() and name.stat().st_nlink > 1:
            raise OSError(
                f"{name} has {name.stat().st_nlink} names (hard links). Keep one: remove the "
                "others, or make them copies of their own"
            )


def close_to_others(path: Path) -> None:
    """Take the rights of everybody but the owner to files that an older version has made."""
    for name in (path, *beside(path), Path(f"{path}.lock")):
        if not name.exists() or not (mode := stat.S_IMODE(name.stat().st_mode)) & OTHERS:
            continue
        try:
            name.chmod(mode & ~OTHERS)
        except OSError:  # not ours, or on a disk that is read-only
            log.warning("store_open_to_others", path=str(name), mode=f"{mode:04o}")
        else:
            log.warning("store_closed_to_others", path=str(name), former_mode=f"{mode:04o}")


def beside(path: Path) -> tuple[Path, Path]:
    """Return the files that SQLite keeps beside the database: write-ahead log and its index."""
    return Path(f"{path}-wal"), Path(f"{path}-shm")


def make_folder(path: Path) -> None:
    """Make the folder and what is missing above it, for the owner alone."""
    if not path.exists():
        make_folder(path.parent)
        path.mkdir(mode=OWNER_FOLDER, exist_ok=True)


def identity(status: os.stat_result) -> Identity:
    """Return what the file is."""
    return status.st_dev, status.st_ino
