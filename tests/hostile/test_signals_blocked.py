"""A second signal ends the process, whatever holds the loop or the interpreter."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path

import pytest

from polos import Agent, PolosClient
from tests.support.process import ServiceProcess, until

APP = """
import asyncio
import ctypes
import os
import re
import time
from pathlib import Path

from polos import Agent, scripted, tool

STARTED = Path(__file__).with_name("started")


async def spins() -> str:
    STARTED.touch()
    while True:
        pass


async def spins_and_keeps_everything() -> str:
    STARTED.touch()
    while True:
        try:
            while True:
                pass
        except BaseException:
            pass


async def sleeps() -> str:
    STARTED.touch()
    time.sleep(1e6)


async def reads_what_nobody_writes() -> str:
    ours, theirs = os.pipe()
    STARTED.touch()
    os.read(ours, 1)


async def searches() -> str:
    STARTED.touch()
    re.match("(a|aa)+$", "a" * 10_000 + "b")


def searches_in_a_thread() -> str:
    STARTED.touch()
    re.match("(a|aa)+$", "a" * 10_000 + "b")


async def computes() -> str:
    STARTED.touch()
    pow(10**7, 10**8)


def holds_the_interpreter_in_a_thread() -> str:
    STARTED.touch()
    ctypes.PyDLL(None).sleep(1_000_000)


OURS = [one for one in list(vars().values()) if getattr(one, "__module__", "") == __name__]
for function in OURS:
    name = function.__name__
    said = scripted.script(scripted.turn(scripted.call(name)), "after")
    tools = [tool(function, description=name)]
    globals()[name + "_agent"] = Agent(name, "scripted", said, tools=tools)
"""

INTERPRETED = [
    "spins",
    "spins_and_keeps_everything",
    "sleeps",
    "reads_what_nobody_writes",
    "computes",
]
"""What lets a handler run: the exit code is that of the second signal."""

HELD = ["searches", "searches_in_a_thread", "holds_the_interpreter_in_a_thread"]
"""What may hold the interpreter: then it is the kernel that ends the process."""

BOUND = 5.0
"""Seconds within which the process ends after the second signal."""

TERM, INT = signal.SIGTERM, signal.SIGINT


async def held(folder: Path, tool: str, *signals: signal.Signals) -> int:
    """Serve, have a tool hold everything, send the signals, and return the exit code."""
    app = folder / "app.py"
    app.write_text(APP)
    env = {"POLOS_GRACE": "3600"}
    async with ServiceProcess(app, folder / "runs.db", **env) as polos:
        async with PolosClient(polos.address) as client:
            await Agent(tool, "scripted", "script").invoke(client, {"input": "Go"})
            await until((folder / "started").exists, "the tool began")
        for number in signals:
            polos.send(number)
            await asyncio.sleep(0.2)  # two of a kind that come at once are one to the kernel
        async with asyncio.timeout(BOUND):
            return await polos.ended()


@pytest.mark.parametrize("tool", INTERPRETED)
@pytest.mark.parametrize("signals", [(TERM, TERM), (INT, INT), (INT, TERM), (TERM, INT)], ids=str)
async def test_a_second_signal_ends_it_while_a_tool(
    tool: str, signals: tuple[signal.Signals, ...], tmp_path: Path
) -> None:
    assert await held(tmp_path, tool, *signals) in {-one for one in signals}


@pytest.mark.parametrize("tool", HELD)
@pytest.mark.parametrize("number", [TERM, INT], ids=str)
async def test_a_second_signal_of_a_kind_ends_it_while_c_code_runs(
    tool: str, number: signal.Signals, tmp_path: Path
) -> None:
    assert await held(tmp_path, tool, number, number) == -number
