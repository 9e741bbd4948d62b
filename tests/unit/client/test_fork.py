"""A client and `fork`, in real processes: it works, or it says so; it never hangs."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from polos_client.calls import channels
from tests.support.fake_service import RUN, FakeService, serving

ROOT = Path(__file__).parents[3]


async def lines(*arguments: str) -> list[str]:
    """Return what the program prints when it forks so."""
    async with serving(FakeService()) as address:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "tests.support.forking", address, *arguments),
            cwd=ROOT,
            stdout=subprocess.PIPE,
        )
        try:
            async with asyncio.timeout(60):
                out, _ = await process.communicate()
        finally:
            if process.returncode is None:
                process.kill()
    return out.decode().splitlines()


@pytest.mark.parametrize("way", ["fork", "multiprocessing"])
@pytest.mark.parametrize("whose", ["same", "new"])
async def test_a_client_that_was_not_used_works_after_the_fork(whose: str, way: str) -> None:
    assert await lines("nothing", whose, way) == [
        f"child {RUN}",
        "child ended with 0",
        f"parent {RUN}",
    ]


@pytest.mark.parametrize("way", ["fork", "multiprocessing"])
@pytest.mark.parametrize("whose", ["same", "new"])
async def test_a_client_that_was_closed_works_after_the_fork(whose: str, way: str) -> None:
    assert await lines("close", whose, way) == [
        f"parent {RUN}",
        f"child {RUN}",
        "child ended with 0",
        f"parent {RUN}",
    ]


@pytest.mark.parametrize("way", ["fork", "multiprocessing"])
@pytest.mark.parametrize("whose", ["same", "new"])
async def test_a_connected_client_makes_every_client_say_so_after_the_fork(
    whose: str, way: str
) -> None:
    first, said, ended, last = await lines("call", whose, way)
    assert said.startswith("child this process was forked from one with a connected client")
    assert "make the client after the fork" in said
    assert (first, ended, last) == (f"parent {RUN}", "child ended with 0", f"parent {RUN}")


def test_a_fork_waits_until_the_threads_of_closed_channels_have_ended(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    threads = [["python", "event_engine"], ["lifeguard"], ["python"]]
    monkeypatch.setattr(channels, "_names_of_threads", lambda: threads.pop(0))
    monkeypatch.setattr(channels, "_closed", closed := threading.Event())
    monkeypatch.setattr(channels, "_open", ())
    channels._before_fork()
    assert len(threads) == 3  # no channel was closed
    closed.set()
    channels._before_fork()
    assert (threads, closed.is_set()) == ([], False)
