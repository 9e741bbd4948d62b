"""The path of a Unix socket: what a dead process left is replaced, a living one is not robbed."""

from __future__ import annotations

import os
import signal
import socket
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from polos_service.listening import ListenError
from polos_service.unix_socket import UnixSocket, private

HOLDER = """
import sys, time
from pathlib import Path
from polos_service.unix_socket import UnixSocket, private
import socket
held = UnixSocket(Path(sys.argv[1]))
one = socket.socket(socket.AF_UNIX)
one.bind(sys.argv[1])
one.listen(1)
print("held", flush=True)
time.sleep(600)
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "polos.sock"


def holder(path: Path) -> subprocess.Popen[str]:
    """Return a process that holds the path, and listens there."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(path)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def refusal(path: Path) -> str:
    """Return why the path is refused; nothing of it is touched."""
    before = sorted(path.parent.iterdir()) if path.parent.is_dir() else []
    with pytest.raises(ListenError) as caught:
        UnixSocket(path)
    after = sorted(path.parent.iterdir()) if path.parent.is_dir() else []
    assert after == before
    assert str(caught.value).startswith(f"Cannot listen on unix:{path}: ")
    return str(caught.value)


def test_a_path_is_held_until_it_is_released(path: Path) -> None:
    held = UnixSocket(path)
    assert "another process listens there" in refusal(path)
    held.release()
    held.release()
    assert list(path.parent.iterdir()) == []
    UnixSocket(path).release()


def test_the_lock_is_for_its_user_alone(path: Path) -> None:
    held = UnixSocket(path)
    (lock,) = path.parent.iterdir()
    assert stat.S_IMODE(lock.stat().st_mode) == 0o600
    held.release()


def test_a_living_process_is_not_robbed_even_if_it_is_stopped(path: Path) -> None:
    process = holder(path)
    try:
        assert "another process listens there" in refusal(path)
        process.send_signal(signal.SIGSTOP)
        assert "another process listens there" in refusal(path)
    finally:
        process.kill()
        process.communicate()
    held = UnixSocket(path)
    assert not path.exists()
    held.release()


def test_a_foreign_program_that_listens_is_not_robbed_even_if_it_is_busy(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as foreign:
        foreign.bind(str(path))
        foreign.listen(0)
        waiting = []
        for _ in range(3):  # until its queue is full
            one = socket.socket(socket.AF_UNIX)
            one.settimeout(0)
            one.connect_ex(str(path))
            waiting.append(one)
        assert "another process listens there" in refusal(path)
        for one in waiting:
            one.close()
    UnixSocket(path).release()


def test_what_is_no_socket_is_not_removed(path: Path) -> None:
    for make in (lambda: path.write_text("mine"), path.mkdir, lambda: path.symlink_to("nowhere")):
        make()
        assert "something else than a socket is there" in refusal(path)
        path.rmdir() if path.is_dir() else path.unlink()


def test_a_path_where_nothing_can_be_is_told_as_that(path: Path) -> None:
    assert "No such file or directory" in refusal(path / "below" / "polos.sock")
    assert "path too long" in refusal(path.with_name("x" * 120))


def test_a_lock_file_of_a_dead_process_does_not_count(path: Path) -> None:
    path.with_name("polos.sock.lock").touch()
    UnixSocket(path).release()
    assert list(path.parent.iterdir()) == []


def test_sockets_are_made_for_their_user_alone(path: Path) -> None:
    before = os.umask(0o022)
    try:
        with private(), socket.socket(socket.AF_UNIX) as one:
            one.bind(str(path))
        assert os.umask(0o022) == 0o022
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
