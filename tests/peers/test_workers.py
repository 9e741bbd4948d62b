"""The longer tests of `polos serve --workers`: a worker hangs, a terminal is closed."""

from __future__ import annotations

import asyncio
import os
import pty
import signal
import sys
from pathlib import Path

import pytest

from polos import Agent, PolosClient
from tests.cli.commands import TAKE_TERMINAL
from tests.support.process import PATIENCE, POLOS, environment, until
from tests.support.workers import Workers

APP = """
from polos import Agent, scripted

greeter = Agent(id="greeter", provider="scripted", model=scripted.script("Hello."))
"""

GREETER = Agent(id="greeter", provider="scripted", model="script")


@pytest.fixture
def app(tmp_path: Path) -> Path:
    file = tmp_path / "app.py"
    file.write_text(APP)
    return file


async def test_a_worker_that_hangs_is_killed_and_replaced(app: Path) -> None:
    async with Workers(app, 2) as polos:
        first, second = polos.workers
        os.kill(first, signal.SIGSTOP)
        await polos.said(f"worker_hangs .*pid={first} ")
        await polos.said(f"worker_ended .*how=SIGKILL pid={first} ")
        await until(lambda: first not in polos.workers, "another worker")
        assert second in polos.workers
        async with PolosClient(polos.address) as client:
            assert await (await GREETER.stream(client, "Hi")).text() == "Hello."


async def test_it_stops_when_its_terminal_is_closed(app: Path) -> None:
    ours, theirs = pty.openpty()
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", TAKE_TERMINAL, str(POLOS), "serve", str(app)),
        *("--listen", "127.0.0.1:0", "--workers", "1"),
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env=environment(XDG_DATA_HOME=str(app.parent)),
    )
    os.close(theirs)
    shown = b""
    while b"worker_serves" not in shown:
        shown += await asyncio.to_thread(os.read, ours, 65536)
    os.close(ours)
    async with asyncio.timeout(PATIENCE):
        assert await process.wait() == 0
