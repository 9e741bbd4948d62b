"""`polos serve` whose standard streams are closed, full, or read by nobody."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shlex
import signal
import socket
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from polos import Agent, PolosClient
from tests.support.process import PATIENCE, POLOS, environment, until

APP = """
import sys
import warnings
import logging
from polos import Agent, scripted, tool


class Hostile(Exception):
    def __str__(self):
        raise SystemExit(8)


@tool(description="Print far more than a pipe holds, and fail")
async def shouts() -> str:
    for _ in range(200):
        print("out " * 2_500)
        print("err " * 2_500, file=sys.stderr)
        logging.getLogger("tool").warning("log " * 2_500)
    warnings.warn("warned")
    raise ValueError("failed " * 1_000)


said = scripted.script(scripted.turn(*[scripted.call("shouts") for _ in range(3)]), "after")
loud = Agent("loud", "scripted", said, tools=[shouts])
"""
LOUD = Agent("loud", "scripted", "script")

CLOSED = [">&-", "2>&-", "<&-", "<&- >&- 2>&-", ">/dev/full 2>/dev/full", ">/dev/full 2>&1"]


HOSTS = (f"127.{os.getpid() % 250 + 1}.{os.getpid() // 250 % 250}.{n}" for n in range(1, 250))
"""Loopback addresses of this process's own: a service that cannot say its port has a known one."""

PORT = 50051

NULL = asyncio.subprocess.DEVNULL


def listens(host: str) -> bool:
    """Return whether somebody listens there."""
    with socket.socket() as one:
        return one.connect_ex((host, PORT)) == 0


class Started:
    """`polos serve`, started by a shell with redirections, or with pipes of the test's own."""

    def __init__(self, process: asyncio.subprocess.Process, host: str) -> None:
        self.process = process
        self.address = f"{host}:{PORT}"

    async def answers(self) -> None:
        """Run the loud agent to its end, more than once: a second run finds what a first broke."""
        async with PolosClient(self.address) as client:
            for _ in range(2):
                assert (await LOUD.run(client, "Go", timeout=PATIENCE)).result == "after"

    async def stops(self) -> None:
        """Stop it, which it must do well."""
        self.process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(PATIENCE):
            assert await self.process.wait() == 0


@contextlib.asynccontextmanager
async def started(
    folder: Path, redirections: str = "", *, out: int | None = None, err: int | None = None
) -> AsyncIterator[Started]:
    """Serve the app."""
    (folder / "app.py").write_text(APP)
    host = next(HOSTS)
    store = f"sqlite://{folder}/runs.db"
    words = [str(POLOS), "serve", "app.py", "--listen", f"{host}:{PORT}", "--store", store]
    process = await asyncio.create_subprocess_exec(
        *("sh", "-c", f"exec {shlex.join(words)} {redirections}"),
        cwd=folder,
        env=environment(),
        stdout=out,
        stderr=err,
    )
    try:
        await until(lambda: process.returncode is not None or listens(host), "it listens")
        yield Started(process, host)
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


def assert_whole(folder: Path) -> None:
    """Assert that nothing was printed into the database."""
    with contextlib.closing(sqlite3.connect(folder / "runs.db")) as db:
        assert db.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    for file in folder.glob("runs.db*"):
        assert b"listens on" not in file.read_bytes()


@pytest.mark.parametrize("redirections", CLOSED)
async def test_it_serves_with_streams_that_are_closed_or_full(
    redirections: str, tmp_path: Path
) -> None:
    async with started(tmp_path, redirections) as polos:
        await polos.answers()
        await polos.stops()
    assert_whole(tmp_path)


@pytest.mark.parametrize("fd", [1, 2])
async def test_it_serves_though_the_reader_of_a_pipe_has_gone(fd: int, tmp_path: Path) -> None:
    ours, theirs = os.pipe()
    out, err = (theirs, NULL) if fd == 1 else (NULL, theirs)
    async with started(tmp_path, out=out, err=err) as polos:
        os.close(theirs)
        os.close(ours)
        await polos.answers()
        await polos.stops()


async def test_it_serves_and_stops_though_nobody_reads_the_pipes(tmp_path: Path) -> None:
    ours, theirs = os.pipe()
    try:
        async with started(tmp_path, out=theirs, err=theirs) as polos:
            await polos.answers()
            await polos.stops()
    finally:
        os.close(ours)
        os.close(theirs)


async def test_what_was_dropped_is_counted_for_a_reader_that_comes_late(tmp_path: Path) -> None:
    ours, theirs = os.pipe()
    async with started(tmp_path, out=NULL, err=theirs) as polos:
        os.close(theirs)
        async with PolosClient(polos.address) as client:
            for _ in range(2):
                await LOUD.run(client, "Go", timeout=PATIENCE)
        read = asyncio.create_task(asyncio.to_thread(to_the_end, ours))
        await polos.stops()
        said = await read
    assert b" lines were dropped." in said
    assert b"\n\n" not in said


def to_the_end(file: int) -> bytes:
    """Read all there is, and close it."""
    with open(file, "rb") as pipe:
        return pipe.read()
