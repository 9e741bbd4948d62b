"""Files of former versions of the schema: their runs and commands go on."""

from __future__ import annotations

import contextlib
import sqlite3
from pathlib import Path

import pytest

from polos.v1.run_pb2 import RunState
from polos_client.errors import StoreUnavailable
from polos_service.store import RunQuery
from polos_service.store.sqlite import SqliteStore
from polos_service.store.sqlite.schema import MIGRATIONS, QUEUED, RUNNING
from tests.support.stores import cancel, claimed, new_run, soon

INDEXES = {
    "runs_by_id",
    "runs_by_request",
    "runs_by_workflow",
    "runs_by_session",
    "runs_by_user",
    "runs_by_state",
    "runs_queued",
    "runs_running",
    "runs_started",
    "runs_due",
    "runs_stuck",
    "runs_finished",
    "runs_expiring",
    "runs_removing",
    "frames_by_run",
    "inbox_by_run",
    "inbox_by_command",
    "access_by_revision",
    "runs_waking",
    "waits_by_age",
    "runs_by_step",
    "runs_by_parent",
    "watchers",
}


def write_former(path: Path, version: int) -> None:
    """Write a file of a former version: of a running run, a queued one and one that ended.

    Before version 4, all but the queued one were cancelled, and a command of a run that is not
    there is left, too.
    """
    with contextlib.closing(sqlite3.connect(path)) as db:
        for step in MIGRATIONS[:version]:
            db.executescript(step)
        db.execute(f"PRAGMA user_version = {version}")
        states = {"running": RUNNING, "queued": QUEUED, "over": RunState.RUN_STATE_COMPLETED}
        for run_id, state in states.items():
            db.execute(
                "INSERT INTO runs (project, run_id, workflow_id, state, epoch, streaming, "
                "create_time, digest, definition) "
                "VALUES ('default', ?, 'agent', ?, 1, 1, 1, x'', ?)",
                (run_id, state, run_id.encode()),
            )
        if version < 4:
            db.execute(
                "INSERT INTO commands SELECT id, 'cancel' FROM runs WHERE run_id != 'queued'"
            )
            db.execute("INSERT INTO commands VALUES (99, 'cancel')")
        db.commit()


def columns(path: Path) -> dict[str, list[tuple[object, ...]]]:
    """Return the columns of each table and index of a file."""
    with contextlib.closing(sqlite3.connect(path)) as db:
        names = [name for (name,) in db.execute("SELECT name FROM sqlite_master ORDER BY name")]
        return {name: list(db.execute(f"PRAGMA table_xinfo({name})")) for name in names}


@pytest.mark.parametrize("version", [1, 2, 3])
async def test_the_commands_of_a_former_version_are_cancels(tmp_path: Path, version: int) -> None:
    path = tmp_path / "runs.db"
    write_former(path, version)
    store = await SqliteStore.open(path)
    (late,) = await store.overdue(2, 0)
    assert (late.run_id, late.held) == ("running", False), "cancelled, and nobody holds it now"
    for run_id, commands in (("running", (cancel("running"),)), ("queued", ())):
        claim = await store.claim_run("default", run_id)
        assert claim is not None
        assert (claim.definition, claim.commands) == (run_id.encode(), commands)
        await store.command("default", run_id, cancel(run_id))
        assert list(await soon(store.commands(claim, 0))) == [cancel(run_id)]
    assert (await store.get("default", "over")).state == RunState.RUN_STATE_COMPLETED
    await store.delete("default", "over")
    left = store._reader.execute("SELECT run_id FROM inbox ORDER BY run_id").fetchall()
    assert left == [("queued",), ("running",)]
    await store.close()


@pytest.mark.parametrize("version", range(1, len(MIGRATIONS)))
async def test_a_former_file_gets_the_schema_of_a_new_one(tmp_path: Path, version: int) -> None:
    write_former(tmp_path / "former.db", version)
    for name in ("former.db", "new.db"):
        await (await SqliteStore.open(tmp_path / name)).close()
        with contextlib.closing(sqlite3.connect(tmp_path / name)) as db:
            assert db.execute("PRAGMA user_version").fetchone() == (len(MIGRATIONS),)
    former, new = columns(tmp_path / "former.db"), columns(tmp_path / "new.db")
    assert former == new
    assert set(new) >= INDEXES
    assert "commands" not in new


@pytest.mark.parametrize("version", range(1, len(MIGRATIONS)))
async def test_the_queued_runs_of_a_former_file_are_claimed(tmp_path: Path, version: int) -> None:
    write_former(tmp_path / "runs.db", version)
    store = await SqliteStore.open(tmp_path / "runs.db")
    claims = await soon(store.claim({"agent"}, 2))
    assert [claim.run_id for claim in claims] == ["running", "queued"]
    await store.close()


@pytest.mark.parametrize("version", range(1, len(MIGRATIONS)))
async def test_the_runs_of_a_former_file_have_no_previews(tmp_path: Path, version: int) -> None:
    write_former(tmp_path / "runs.db", version)
    store = await SqliteStore.open(tmp_path / "runs.db")
    listed = await store.list("default", RunQuery(limit=10))
    assert [one.input_preview for one in listed] == ["", "", ""]
    assert await store.definition("default", "over") == b"over"
    await store.create(new_run(input_preview="Hello."))
    assert "Hello." in [
        one.input_preview for one in await store.list("default", RunQuery(limit=10))
    ]
    await store.close()


async def test_a_migration_that_fails_leaves_the_file_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "runs.db"
    write_former(path, 3)
    with contextlib.closing(sqlite3.connect(path)) as db:
        db.execute("CREATE TABLE t (inbox_by_command)")
        db.execute("CREATE INDEX inbox_by_command ON t (inbox_by_command)")
        db.commit()
    with pytest.raises(StoreUnavailable, match="inbox_by_command"):
        await SqliteStore.open(path)
    with contextlib.closing(sqlite3.connect(path)) as db:
        assert db.execute("PRAGMA user_version").fetchone() == (3,)
        assert db.execute("SELECT count(*) FROM commands").fetchone() == (3,)
        db.execute("DROP TABLE t")
        db.commit()
    store = await SqliteStore.open(path)
    claim = await store.claim_run("default", "running")
    assert claim is not None
    assert claim.commands == (cancel("running"),)
    await store.close()


async def test_a_migrated_file_is_opened_again(tmp_path: Path) -> None:
    path = tmp_path / "runs.db"
    write_former(path, 3)
    store = await SqliteStore.open(path)
    created = await claimed(store)
    await store.command("default", created.run_id, cancel(created.run_id))
    await store.close()
    store = await SqliteStore.open(path)
    for run_id in ("running", created.run_id):
        claim = await store.claim_run("default", run_id)
        assert claim is not None
        assert claim.commands == (cancel(run_id),)
    await store.close()
