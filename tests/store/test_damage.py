"""A file that is deleted, replaced or overwritten under a store that has it open."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from polos_client.errors import StoreUnavailable
from polos_service.store import Claim
from polos_service.store.sqlite import SqliteStore
from polos_service.store.sqlite import damage as module
from polos_service.store.sqlite.schema import PAGE_SIZE
from tests.support.stores import ALL, PATIENCE, claimed, ended, frame, history, new_run, soon

FRAME = b"x" * 3000


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SqliteStore]:
    opened = await SqliteStore.open(tmp_path / "store" / "runs.db")
    yield opened
    await opened.close()


def path_of(store: SqliteStore) -> Path:
    return store._file.path


async def filled(store: SqliteStore, frames: int = 40) -> Claim:
    claim = await claimed(store)
    for number in range(1, frames + 1):
        await store.append(claim, frame(number, data=FRAME))
    return claim


def written_back(store: SqliteStore) -> None:
    store._db.execute("PRAGMA wal_checkpoint(PASSIVE)")


def deleted(path: Path) -> str:
    path.unlink()
    return f"{path.name} was deleted"


def log_deleted(path: Path) -> str:
    Path(f"{path}-wal").unlink()
    return f"{path.name}-wal was deleted"


def index_deleted(path: Path) -> str:
    Path(f"{path}-shm").unlink()
    return f"{path.name}-shm was deleted"


def folder_deleted(path: Path) -> str:
    shutil.rmtree(path.parent)
    return f"{path.name} was deleted"


def folder_moved(path: Path) -> str:
    path.parent.rename(path.parent.with_name("moved"))
    return f"{path.name} was deleted or moved"


def replaced(path: Path) -> str:
    new = path.with_name("new")
    new.write_bytes(b"")
    new.replace(path)
    return f"{path.name} was replaced"


def log_replaced(path: Path) -> str:
    new = path.with_name("new")
    new.write_bytes(b"")
    new.replace(f"{path}-wal")
    return f"{path.name}-wal was replaced"


def overwritten(path: Path, place: int, data: bytes) -> None:
    """Write as another process would: in this one, closing the file drops SQLite's locks."""
    descriptor = os.open(f"/proc/self/fd/{descriptor_of(path)}", os.O_WRONLY)
    os.pwrite(descriptor, data, place)
    os.close(descriptor)


def descriptor_of(path: Path) -> int:
    known = path.stat()
    for name in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):
            if os.path.samestat(os.fstat(int(name.name)), known):
                return int(name.name)
    raise AssertionError(path)


def head_overwritten(path: Path) -> str:
    overwritten(path, 0, os.urandom(100))
    return f"{path.name} was overwritten"


def emptied(path: Path) -> str:
    os.truncate(path, 0)
    return f"{path.name} was overwritten"


def log_overwritten(path: Path) -> str:
    overwritten(Path(f"{path}-wal"), 0, os.urandom(1000))
    return f"{path.name}-wal was overwritten"


WAYS: list[Callable[[Path], str]] = [
    deleted,
    log_deleted,
    index_deleted,
    folder_deleted,
    folder_moved,
    replaced,
    log_replaced,
    head_overwritten,
    emptied,
    log_overwritten,
]


@pytest.mark.parametrize("way", WAYS)
async def test_it_is_told_at_once_and_nothing_more_is_acknowledged(
    store: SqliteStore, way: Callable[[Path], str]
) -> None:
    claim = await filled(store)
    assert await store.healthy()
    with capture_logs() as logs:
        what = way(path_of(store))
        with pytest.raises(StoreUnavailable, match="Nothing more is stored") as refused:
            await store.append(claim, frame(41))
        assert what in str(refused.value)
        assert not await store.healthy()
        with pytest.raises(StoreUnavailable, match="Nothing more is stored"):
            await store.create(new_run())
        await asyncio.sleep(0)
    (told,) = logs
    assert told["event"] == "store_failed"
    assert what in told["error"]


@pytest.mark.parametrize("way", WAYS)
async def test_health_tells_it_where_nobody_writes(
    store: SqliteStore, way: Callable[[Path], str]
) -> None:
    await filled(store)
    assert await store.healthy()
    what = way(path_of(store))
    assert not await store.healthy()
    assert what in str(store._condition.trouble)


async def test_what_is_deleted_during_a_commit_is_not_acknowledged(store: SqliteStore) -> None:
    claim = await claimed(store)
    waking = asyncio.create_task(store.wait("default", claim.run_id, 0))

    def append(db: sqlite3.Connection) -> None:
        db.execute("UPDATE runs SET session_id = 'x'")
        path_of(store).unlink()

    woken: list[bool] = []
    with pytest.raises(StoreUnavailable, match="was deleted"):
        await soon(store._committer.submit(append, lambda _: woken.append(True)))
    assert woken == []
    waking.cancel()


@pytest.mark.parametrize("back", [True, False], ids=["in the file", "in the log"])
@pytest.mark.parametrize("pattern", [b"\xff", b"\0", b"ab"])
async def test_overwritten_pages_are_noticed(
    store: SqliteStore, pattern: bytes, *, back: bool
) -> None:
    await filled(store)
    written_back(store)
    if not back:
        await filled(store)  # the newest pages are in the log, and hide those in the file
    assert await store.healthy()
    path = path_of(store)
    for page in range(2, path.stat().st_size // PAGE_SIZE, 3):
        overwritten(path, page * PAGE_SIZE, pattern * (PAGE_SIZE // len(pattern)))
    with capture_logs() as logs:
        await unhealthy(store)
    assert [one["event"] for one in logs] == ["store_failed"]
    assert "runs.db is damaged (" in logs[0]["error"]
    with pytest.raises(StoreUnavailable, match="is damaged"):
        await store.create(new_run())


async def test_one_page_in_the_middle_is_noticed_in_a_large_file(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "IMAGE_LIMIT", 0)  # as if it were too large to be held twice
    await filled(store, 200)
    written_back(store)
    assert await store.healthy()
    path = path_of(store)
    overwritten(path, path.stat().st_size // PAGE_SIZE // 2 * PAGE_SIZE, b"\xee" * PAGE_SIZE)
    await unhealthy(store)


async def unhealthy(store: SqliteStore) -> None:
    """Ask until the answer is no: the pages are not looked through at each question."""
    async with asyncio.timeout(PATIENCE):
        while await store.healthy():
            await asyncio.sleep(0.01)
    await asyncio.sleep(0)


async def test_a_sound_file_is_looked_through_once_for_each_change(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks: list[module.Pages] = []
    damage = module.Pages.damage

    def counted(pages: module.Pages) -> str | None:
        looks.append(pages)
        return damage(pages)

    monkeypatch.setattr(module.Pages, "damage", counted)
    await filled(store)
    for _ in range(5):
        assert await store.healthy()
    assert len(looks) == 1
    written_back(store)
    store._condition._next_look = 0
    assert await store.healthy()
    assert len(looks) == 2


async def test_a_file_that_could_not_be_looked_through_is_not_taken_for_sound(
    store: SqliteStore, tmp_path: Path
) -> None:
    await filled(store)
    pages = module.Pages(store._file)
    path = path_of(store).rename(tmp_path / "elsewhere.db")
    assert pages.damage() is None
    assert pages.changed()
    path.rename(path_of(store))
    assert pages.damage() is None
    assert not pages.changed()


async def test_a_file_that_is_written_back_all_the_time_is_not_taken_for_damaged(
    store: SqliteStore,
) -> None:
    store._db.execute("PRAGMA wal_autocheckpoint = 1")
    claim = await claimed(store)
    writing = asyncio.create_task(append_many(store, claim, 100))
    while not writing.done():
        store._condition._next_look = 0
        assert await store.healthy()
        await asyncio.sleep(0)
    await writing


async def append_many(store: SqliteStore, claim: Claim, frames: int) -> None:
    for number in range(1, frames + 1):
        await store.append(claim, frame(number, data=FRAME))


async def test_damage_that_a_read_finds_is_told_at_once(store: SqliteStore) -> None:
    claim = await filled(store)

    def malformed() -> None:
        error = sqlite3.DatabaseError("database disk image is malformed")
        error.sqlite_errorcode = sqlite3.SQLITE_CORRUPT
        raise error

    with pytest.raises(StoreUnavailable, match="cannot be read"), store._reading():
        malformed()
    assert not await store.healthy()
    with pytest.raises(StoreUnavailable, match="is damaged"):
        await store.append(claim, frame(41))
    assert (await store.get("default", claim.run_id)).latest == 40, "what is there can be read"


async def test_a_disk_that_fails_is_told_until_it_writes_again(store: SqliteStore) -> None:
    def fail(db: sqlite3.Connection) -> None:
        error = sqlite3.OperationalError("disk I/O error")
        error.sqlite_errorcode = sqlite3.SQLITE_IOERR_WRITE
        raise error

    with capture_logs() as logs:
        with pytest.raises(StoreUnavailable, match="disk I/O error"):
            await store._committer.submit(fail)
        assert store._condition.failing
        store._db.execute("PRAGMA query_only = ON")
        assert not await store.healthy()
        store._db.execute("PRAGMA query_only = OFF")
        assert await store.healthy()
    assert [one["event"] for one in logs] == ["store_disk_error"]
    await store.create(new_run())


BROKEN = [
    ("frames", "data", 5),
    ("frames", "data", "text"),
    ("frames", "private", 5),
    ("frames", "first", b"1"),
    ("frames", "last", b"x"),
    ("runs", "state", "text"),
    ("runs", "state", 77),
    ("runs", "create_time", b"x"),
    ("runs", "session_id", 5),
    ("runs", "definition", 5),
]


@pytest.mark.parametrize(("table", "column", "value"), BROKEN)
async def test_a_value_that_was_never_written_is_told_as_damage(
    store: SqliteStore, table: str, column: str, value: object
) -> None:
    claim = await filled(store, 3)
    await soon(store._unspool_all())
    # STRICT keeps such values out; a damaged page does not.
    break_type(path_of(store), table, column, value)
    calls: list[Callable[[], Awaitable[object]]] = [
        lambda: store.get("default", claim.run_id),
        lambda: store.read("default", claim.run_id, 0, ALL),
        lambda: history(store, claim),
        lambda: store.claim_run("default", claim.run_id, force=True),
    ]
    refused = 0
    store._tails._frames.clear()
    for call in calls:
        try:
            await soon(call())
        except StoreUnavailable:
            refused += 1
    assert refused
    assert not await store.healthy()


def break_type(path: Path, table: str, column: str, value: object) -> None:
    """Write a value of any type into a column, as only damage can."""
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as db:
        (sql,) = db.execute("SELECT sql FROM sqlite_master WHERE name = ?", (table,)).fetchone()
        db.execute("PRAGMA writable_schema = ON")
        loose = sql.replace(" STRICT", "").replace(f"{column} INTEGER", column)
        loose = loose.replace(f"{column} TEXT", column).replace(f"{column} BLOB", column)
        db.execute("UPDATE sqlite_master SET sql = ? WHERE name = ?", (loose, table))
        db.execute("PRAGMA schema_version = 1000")
        db.execute("PRAGMA writable_schema = RESET")
        db.execute(f"UPDATE {table} SET {column} = ?", (value,))


async def test_a_damaged_log_is_told_with_its_run(store: SqliteStore) -> None:
    good, bad = await ended(store), await filled(store, 3)
    await soon(store._unspool_all())
    break_type(path_of(store), "frames", "data", 5)
    with pytest.raises(StoreUnavailable, match=f"log of run {bad.run_id} cannot be read"):
        await history(store, bad)
    assert (await store.get("default", good.run_id)).run_id == good.run_id
