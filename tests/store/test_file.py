"""One writer for each file, whatever it is called; and a file that only its owner reads."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from polos.v1.run_pb2 import RunState
from polos_client.errors import StoreUnavailable
from polos_service.errors import Fenced
from polos_service.store.sqlite import SqliteStore
from polos_service.store.sqlite.opening import prepare
from tests.support.stores import claimed, frame, new_run, soon, spans

ROOT = Path(__file__).parents[2]

FILES = ("runs.db", "runs.db-wal", "runs.db-shm", "runs.db.lock")


def second(path: Path) -> str:
    """Open the store in another process, which must be refused; return what it says."""
    program = [sys.executable, "-m", "tests.support.open_store", str(path)]
    ended = subprocess.run(
        program,
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=False,
        text=True,
        timeout=60,
    )
    assert (ended.returncode, ended.stdout) == (1, ""), ended.stderr
    return ended.stderr.strip().splitlines()[-1]


@contextlib.contextmanager
def elsewhere(path: Path) -> Iterator[None]:
    """Keep the store open in another process."""
    program = [sys.executable, "-m", "tests.support.open_store", str(path)]
    with subprocess.Popen(
        program, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stdout.readline() == "open\n"
        yield
        process.stdin.close()


def symbolic_link(path: Path) -> Path:
    link = path.parent / "link.db"
    link.symlink_to(path)
    return link


def relative_link(path: Path) -> Path:
    (path.parent / "below").mkdir()
    link = path.parent / "below" / "link.db"
    link.symlink_to("../runs.db")
    return link


def linked_folder(path: Path) -> Path:
    link = path.parent.parent / "folder"
    link.symlink_to(path.parent)
    return link / path.name


def hard_link(path: Path) -> Path:
    link = path.parent / "hard.db"
    link.hardlink_to(path)
    return link


def deleted_lock(path: Path) -> Path:
    path.with_name("runs.db.lock").unlink()
    return path


def replaced_lock(path: Path) -> Path:
    path.with_name("other").write_text("")
    path.with_name("other").replace(path.with_name("runs.db.lock"))
    return path


def renamed(path: Path) -> Path:
    return path.rename(path.with_name("renamed.db"))


def through_proc(path: Path) -> Path:
    return Path(f"/proc/{os.getpid()}/root{path}")


WAYS: list[Callable[[Path], Path]] = [
    symbolic_link,
    relative_link,
    linked_folder,
    hard_link,
    deleted_lock,
    replaced_lock,
    renamed,
    through_proc,
]


@pytest.mark.parametrize("way", WAYS)
async def test_no_way_to_the_file_leads_to_a_second_writer(
    tmp_path: Path, way: Callable[[Path], Path]
) -> None:
    path = tmp_path / "store" / "runs.db"
    store = await SqliteStore.open(path)
    claim = await claimed(store)
    other = way(path)
    said = await asyncio.to_thread(second, other)
    assert str(other) in said
    assert "is in use" in said or "names (hard links)" in said
    with pytest.raises(StoreUnavailable):
        await SqliteStore.open(other)
    if way is not renamed:
        await store.append(claim, frame(1))
        assert await spans(store, claim) == [(1, 1)]
    assert (await store.get("default", claim.run_id)).state == RunState.RUN_STATE_RUNNING
    await store.close()


async def test_a_process_that_has_the_file_by_another_way_keeps_it(tmp_path: Path) -> None:
    path = tmp_path / "runs.db"
    await (await SqliteStore.open(path)).close()
    with elsewhere(symbolic_link(path)):
        deleted_lock(path)
        with pytest.raises(StoreUnavailable, match="is in use by another process"):
            await SqliteStore.open(path)
    await (await SqliteStore.open(path)).close()


async def test_a_file_with_two_names_is_refused_though_nobody_has_it(tmp_path: Path) -> None:
    path = tmp_path / "runs.db"
    await (await SqliteStore.open(path)).close()
    link = hard_link(path)
    for name in (path, link):
        with pytest.raises(StoreUnavailable, match=r"has 2 names \(hard links\)\. Keep one"):
            await SqliteStore.open(name)
    link.unlink()
    await (await SqliteStore.open(path)).close()


@pytest.mark.parametrize("end", ["-wal", "-shm"])
async def test_a_link_beside_the_database_is_refused(tmp_path: Path, end: str) -> None:
    path = tmp_path / "runs.db"
    await (await SqliteStore.open(path)).close()
    (tmp_path / "elsewhere").write_bytes(b"")
    (tmp_path / f"runs.db{end}").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(StoreUnavailable, match=rf"runs\.db{end} is a symbolic link"):
        await SqliteStore.open(path)


async def test_what_is_no_regular_file_is_refused_at_once(tmp_path: Path) -> None:
    pipe = tmp_path / "runs.db"
    os.mkfifo(pipe)
    with pytest.raises(StoreUnavailable, match="is not a regular file"):
        await soon(SqliteStore.open(pipe))


async def test_a_copy_is_another_file(tmp_path: Path) -> None:
    path, copy = tmp_path / "runs.db", tmp_path / "copy.db"
    store = await SqliteStore.open(path)
    claim = await claimed(store)
    for end in ("", "-wal"):
        await asyncio.to_thread(subprocess.run, ["cp", f"{path}{end}", f"{copy}{end}"], check=True)
    other = await SqliteStore.open(copy)
    again = await other.claim_run("default", claim.run_id)
    assert again is not None
    await other.append(again, frame(1))
    await store.append(claim, frame(1))
    assert await store.healthy()
    assert await other.healthy()
    await other.close()
    await store.close()


@pytest.mark.parametrize("idle", [False, True])
async def test_who_was_taken_over_all_the_same_is_fenced(tmp_path: Path, *, idle: bool) -> None:
    """As on a system without locks: the token in the file decides."""
    path = tmp_path / "runs.db"
    store = await SqliteStore.open(path)
    claim = await claimed(store)
    prepare(path, b"somebody else")
    with capture_logs() as logs:
        if idle:
            assert not await store.healthy()
        with pytest.raises(Fenced, match="taken over"):
            await store.append(claim, frame(1))
        with pytest.raises(Fenced, match="taken over"):
            await store.append(claim, frame(1))
        with pytest.raises(StoreUnavailable, match=r"taken over runs\.db.*Stop one of the two"):
            await store.create(new_run())
        await store.release(claim)
        assert not await store.healthy()
        await asyncio.sleep(0)
    assert [one["event"] for one in logs] == ["store_failed"]
    assert await spans(store, claim) == []
    await store.close()
    store = await SqliteStore.open(path)
    assert await store.claim_run("default", claim.run_id) is not None
    await store.close()


async def test_a_forked_child_does_not_keep_the_file_of_a_dead_process(tmp_path: Path) -> None:
    path = tmp_path / "runs.db"
    program = [sys.executable, "-m", "tests.support.open_store", str(path), "fork"]
    dead = await asyncio.to_thread(
        subprocess.run,
        program,
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
        check=False,
        timeout=60,
    )
    child = int(dead.stdout.split()[1])
    try:
        store = await SqliteStore.open(path)
        await store.close()
    finally:
        os.kill(child, signal.SIGKILL)


@contextlib.contextmanager
def umask(bits: int) -> Iterator[None]:
    before = os.umask(bits)
    try:
        yield
    finally:
        os.umask(before)


def modes(folder: Path) -> dict[str, int]:
    return {name: stat.S_IMODE((folder / name).stat().st_mode) for name in FILES}


@pytest.mark.parametrize("bits", [0, 0o022])
async def test_only_the_owner_can_read_what_is_made(tmp_path: Path, bits: int) -> None:
    folder = tmp_path / "one" / "two"
    with umask(bits):
        store = await SqliteStore.open(folder / "runs.db")
        await claimed(store)
    assert modes(folder) == dict.fromkeys(FILES, 0o600)
    assert [stat.S_IMODE(one.stat().st_mode) for one in (folder.parent, folder)] == [0o700] * 2
    await store.close()


async def test_a_file_that_others_could_read_is_closed_to_them(tmp_path: Path) -> None:
    path = tmp_path / "runs.db"
    store = await SqliteStore.open(path)
    await claimed(store)
    (tmp_path / "copies").mkdir()
    for name in FILES:
        shutil.copyfile(tmp_path / name, tmp_path / "copies" / name)
        (tmp_path / "copies" / name).chmod(0o644)
    await store.close()
    with capture_logs() as logs:
        store = await SqliteStore.open(tmp_path / "copies" / "runs.db")
    assert modes(tmp_path / "copies") == dict.fromkeys(FILES, 0o600)
    told = [one for one in logs if one["event"] == "store_closed_to_others"]
    assert {Path(one["path"]).name for one in told} == set(FILES)
    assert {one["former_mode"] for one in told} == {"0644"}
    await store.close()
