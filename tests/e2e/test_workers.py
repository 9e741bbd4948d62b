"""`polos serve --workers`: processes die, and readers notice nothing."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

import pytest

from polos import PolosClient
from tests.support.process import until
from tests.support.reader import Events, assert_whole, texts
from tests.support.waiting_app import WAITER, open_gate, waits_in, write_app
from tests.support.workers import Workers, serve

pytestmark = pytest.mark.usefixtures("patient")


@pytest.fixture
def app(tmp_path: Path) -> Path:
    return write_app(tmp_path)


async def test_a_worker_and_the_store_are_killed_and_a_reader_misses_nothing(app: Path) -> None:
    async with Workers(app, 2) as polos, PolosClient(polos.address) as client:
        stream = await WAITER.stream(client, "Go")
        async with Events(stream.events) as read:
            first = await waits_in(polos)
            assert first in polos.workers
            os.kill(first, signal.SIGKILL)
            second = await waits_in(polos, 2)
            await polos.said(rf"worker_ended .*how=SIGKILL pid={first} ")
            await until(lambda: first not in polos.workers, "another worker")
            server = polos.nats
            os.kill(server, signal.SIGKILL)
            await until(lambda: polos.nats != server, "another nats-server")
            open_gate(app)
            log = await read.all()
        assert second != first
        assert_whole(log)
        assert "".join(texts(log)) == "Wait. It is open."
        assert any(event.event_type == "step_retry" for event in log)
        assert [line for line in polos.lines if "Traceback" in line] == []


async def test_what_cannot_be_served_is_told_once(app: Path) -> None:
    broken = app.with_name("broken.py")
    broken.write_text("raise RuntimeError('no settings')\n")
    leaving = app.with_name("leaving.py")
    leaving.write_text("import sys\nsys.exit(3)\n")
    workers = ("--listen", "127.0.0.1:0", "--workers", "3")
    refused = await asyncio.gather(
        serve(broken, *workers, data="a"),
        serve(leaving, *workers, data="b"),
        serve(app, *workers, "--store", "sqlite:///tmp/runs.db"),
        serve(app, *workers, "--reload"),
    )
    assert [code for code, _ in refused] == [1, 3, 1, 1]
    told = [said.splitlines() for _, said in refused]
    assert told[0][1] == "Error: broken.py cannot be loaded."
    assert told[0][-1] == "RuntimeError: no settings"
    assert len(told[0]) == 6
    assert told[1][1:] == ["Error: A worker ended with exit code 3 before it served."]
    assert told[2][0].startswith("Error: POLOS_STORE (--store): a SQLite file belongs to one ")
    assert told[3] == [
        "Error: --reload serves with a single process: leave out --workers (POLOS_WORKERS)."
    ]
