"""The files of a SQLite store: who owns them, who may read them, and what has happened to them.

The owner holds a lock on the file's inode, not on its name, so that links and a deleted lock
file do not get around it. On a system without such a lock, the owner's token inside the
database fences a second process.

The descriptor with the lock is opened before SQLite opens the file, and closed after SQLite
has closed it: closing any descriptor of a file drops the POSIX locks that SQLite has on it.
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
"""Mode of the files of a store: they hold prompts, results and provider state."""

OWNER_FOLDER = 0o700
"""Mode of a folder that is created for a store."""

OTHERS = 0o077
"""The bits of a mode that give rights to anybody but the owner."""

HEADER = 24
"""Bytes at the start of a database that never change while it is in use."""

WAL_MAGIC = (b"\x37\x7f\x06\x82", b"\x37\x7f\x06\x83")
"""The possible first bytes of a write-ahead log that is not empty."""

Identity = tuple[int, int]
"""Device and inode: they identify a file whatever its name."""

log = get_logger(__name__)

_held: dict[Identity, int] = {}
"""Descriptors of the databases that this process has open, by file."""

_holding = threading.Lock()
"""Guards _held, and the time between opening a database and being in it."""


class InUseError(OSError):
    """Another store, in this process or another, has the file open."""


def holder(path: Path) -> str:
    """Return who has a file open that is in use."""
    with _holding:
        here = path.exists() and identity(path.stat()) in _held
    return "another service in this process" if here else "another process"


class StoreFile:
    """A database file that is held, from `__init__` until `close`.

    Attributes:
        path: path of the database, with every symbolic link resolved.
        descriptor: descriptor of the database, for reading its bytes. Nobody else opens the
            database or closes this descriptor.
        token: marks the database as opened by this object.

    """

    def __init__(self, path: Path) -> None:
        """Lock the file, which is created if it is missing.

        Raises:
            InUseError: it is open elsewhere.
            OSError: it cannot be created or opened, has a second name, or is not a regular file.

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
        self._wal = -1

    def remember(self) -> None:
        """Remember which files SQLite has opened. Call it after the first read.

        Raises:
            OSError: the database was replaced since it was locked, or a file beside it is missing.

        """
        self._known = {name: identity(name.stat()) for name in (self.path, *beside(self.path))}
        if self._known[self.path] != identity(os.fstat(self.descriptor)):
            raise OSError("the file was replaced while the service opened it")
        close_to_others(self.path)
        self._wal = os.open(f"{self.path}-wal", os.O_RDONLY)  # SQLite has no lock on this one
        self._header = os.pread(self.descriptor, HEADER, 0)

    def fault(self) -> str | None:
        """Return what has happened to the files since `remember`, None if nothing has.

        The text is shown to callers, so it names the files without their folders. It takes a
        few microseconds, since it is called after each commit.
        """
        name = self.path
        try:
            for name, known in self._known.items():
                if identity(name.stat()) != known:
                    return f"{name.name} was replaced by another file"
            header, magic = os.pread(self.descriptor, HEADER, 0), os.pread(self._wal, 4, 0)
        except (FileNotFoundError, NotADirectoryError):
            return f"{name.name} was deleted or moved"
        except OSError as error:
            return f"{name.name} cannot be reached ({error.strerror})"
        if header != self._header:
            return f"{self.path.name} was overwritten: its first bytes have changed"
        if magic in (b"", *WAL_MAGIC):
            return None
        return f"{self.path.name}-wal was overwritten: it does not start like a write-ahead log"

    def close(self) -> None:
        """Release the file. SQLite must have closed it."""
        if self._wal >= 0:
            os.close(self._wal)
        with _holding:
            _held.pop(identity(os.fstat(self.descriptor)))
            os.close(self.descriptor)
        self._lock.release()


def hold(path: Path) -> int:
    """Open the database, which is created if it is missing; lock it and return the descriptor.

    Raises:
        InUseError: it is open elsewhere.
        OSError: it cannot be created or opened, has a second name, or is not a regular file.

    """
    with _holding:
        # Checked before it is opened: closing it again would drop the locks of its holder.
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
    """Close the copies of a fork: a tool's child must not keep the lock of a dead service."""
    for descriptor in _held.values():
        os.close(descriptor)
    _held.clear()


os.register_at_fork(after_in_child=let_go_in_child)


def opened(path: Path) -> int:
    """Open the file, read-only if it cannot be written: SQLite then says what is wrong."""
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_NONBLOCK, OWNER_ONLY)
    except PermissionError:
        return os.open(path, os.O_RDONLY | os.O_NONBLOCK)


def lock_inode(descriptor: int, path: Path) -> None:
    """Lock the inode, on systems that keep this lock apart from those of SQLite.

    Raises:
        InUseError: somebody else has the lock.

    """
    if sys.platform == "linux":
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InUseError(str(path)) from None


def require_plain(path: Path) -> None:
    """Raise OSError unless each file is a regular file without a second name.

    SQLite looks for the write-ahead log beside the name it is given: opened by another name, it
    misses the log's content and damages the database.
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
    """Remove the rights of everybody but the owner, which files of an older version may have."""
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
    """Create the folder and its missing parents, for the owner alone."""
    if not path.exists():
        make_folder(path.parent)
        path.mkdir(mode=OWNER_FOLDER, exist_ok=True)


def identity(status: os.stat_result) -> Identity:
    """Return what identifies the file."""
    return status.st_dev, status.st_ino
