"""What the tests of the SQLite store's spool write, read and leave behind."""

from __future__ import annotations

import shutil
from pathlib import Path

from polos_service.store import Claim
from polos_service.store.sqlite import SqliteStore
from tests.support.stores import ALL, frame


async def fill(store: SqliteStore, claim: Claim, first: int, last: int) -> None:
    """Append frames of an event each; the data of each is its number and a comma."""
    for number in range(first, last + 1):
        await store.append(claim, frame(number, data=b"%d," % number), b"p%d," % number)


def numbers(first: int, last: int, letter: str = "") -> bytes:
    return "".join(f"{letter}{number}," for number in range(first, last + 1)).encode()


async def read(store: SqliteStore, claim: Claim, after: int = 0, limit: int = ALL) -> bytes:
    """Read slice by slice, and check that each begins where the last one ended."""
    data = b""
    while (part := await store.read("default", claim.run_id, after, limit)).frames:
        first = part.frames[0]
        data += first.data.split(b",", after + 1 - first.first)[-1]
        data += b"".join(one.data for one in part.frames[1:])
        for one, following in zip(part.frames, part.frames[1:], strict=False):
            assert one.last + 1 == following.first
        after = part.frames[-1].last
        assert after <= part.latest
    return data


def in_file(store: SqliteStore) -> tuple[int, int]:
    """Return how many rows of events and of the spool the file holds."""
    counts = "(SELECT count(*) FROM frames WHERE first <= last), (SELECT count(*) FROM spool)"
    events, spooled = store._reader.execute(f"SELECT {counts}").fetchone()
    return events, spooled


async def after_a_crash(store: SqliteStore, folder: Path) -> SqliteStore:
    """Open what a process leaves that is killed now."""
    return await SqliteStore.open(crashed(store, folder))


def crashed(store: SqliteStore, folder: Path) -> Path:
    folder.mkdir()
    for name in ("runs.db", "runs.db-wal"):
        shutil.copy(store._file.path.with_name(name), folder / name)
    return folder / "runs.db"
