"""What it costs the SQLite store to start runs: commits, and statements that the loop waits for."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from polos_service.store import Claim
from tests.support.runs import opened
from tests.support.stores import (
    ALL,
    COMPLETED,
    cancel,
    claimed,
    first_claim,
    frame,
    new_run,
    soon,
)


@contextmanager
def statements(db: sqlite3.Connection) -> Iterator[list[str]]:
    """Give the statements that a connection executes in the block."""
    seen: list[str] = []
    db.set_trace_callback(seen.append)
    try:
        yield seen
    finally:
        db.set_trace_callback(None)


async def test_300_runs_are_claimed_in_19_commits(tmp_path: Path) -> None:
    async with opened(tmp_path) as store:
        created = [await store.create(new_run()) for _ in range(300)]
        with statements(store._db) as seen:
            got: list[Claim] = []
            while len(got) < 300:
                got += await soon(store.claim({"agent"}, 16))
        assert [claim.run_id for claim in got] == created
        assert seen.count("COMMIT") == 19


async def test_the_loop_asks_the_file_nothing_while_a_run_starts(tmp_path: Path) -> None:
    async with opened(tmp_path) as store:
        with statements(store._reader) as seen:
            run_id = await store.create(new_run())
            found = await store.read("default", run_id, 0, ALL)
            assert (found.frames, found.latest, found.ended) == ((), 0, False)
            claim = await soon(first_claim(store, {"agent"}))
            assert (await store.read("default", run_id, 0, ALL)).latest == 0
            commands = soon(store.commands(claim, 0))
            await store.append(claim, frame(1, 2))
            assert (await store.read("default", run_id, 0, ALL)).latest == 2
        assert seen == []
        await store.command("default", run_id, cancel(run_id))
        assert await commands == (cancel(run_id),)


async def test_a_command_that_comes_before_the_holder_looks_is_found(tmp_path: Path) -> None:
    async with opened(tmp_path) as store:
        claim = await claimed(store)
        for _ in range(2):  # the second time it is ignored
            await store.command("default", claim.run_id, cancel(claim.run_id))
        assert await soon(store.commands(claim, 0)) == (cancel(claim.run_id),)


async def test_a_reader_behind_the_log_s_end_reads_the_file_after_a_claim(tmp_path: Path) -> None:
    async with opened(tmp_path) as store:
        claim = await claimed(store)
        await store.append(claim, frame(1, 3, b"abc"))
        await store.release(claim)
        again = await soon(first_claim(store, {"agent"}))
        assert again.latest == 3
        found = await store.read("default", claim.run_id, 1, ALL)
        assert [(one.first, one.last, one.data) for one in found.frames] == [(1, 3, b"abc")]


async def test_the_release_of_a_run_that_has_ended_commits_nothing(tmp_path: Path) -> None:
    async with opened(tmp_path) as store:
        claim = await claimed(store)
        await store.append(claim, frame(1, outcome=COMPLETED))
        with statements(store._db) as seen:
            await store.release(claim)
        assert seen == []


async def test_a_repeated_start_does_not_hide_what_the_run_has_done(tmp_path: Path) -> None:
    async with opened(tmp_path) as store:
        claim = await claimed(store, request_id="once")
        await store.append(claim, frame(1, outcome=COMPLETED))
        assert await store.create(new_run(request_id="once")) == claim.run_id
        found = await store.read("default", claim.run_id, 0, ALL)
        assert (found.latest, found.ended) == (1, True)
