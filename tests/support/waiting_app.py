"""An app for workers: its agent waits in a tool until a gate is open."""

from __future__ import annotations

import re
from pathlib import Path

from polos import Agent
from tests.support.process import until
from tests.support.workers import Workers

APP = """
import asyncio
import os
from pathlib import Path

from polos import Agent, scripted, tool

HERE = Path(__file__).parent


@tool(description="Wait until the gate is open")
async def gate() -> str:
    print("waiting in", os.getpid(), "x" * 100_000, "end")
    while not (HERE / "open").exists():
        await asyncio.sleep(0.01)
    return "open"


waiter = Agent(
    id="waiter",
    provider="scripted",
    model=scripted.script(scripted.turn("Wait. ", scripted.call("gate")), "It is open."),
    tools=[gate],
)
"""

WAITER = Agent(id="waiter", provider="scripted", model="script")
"""The agent as a caller defines it."""

MORE = 'more = Agent(id="more", provider="scripted", model=scripted.script("I am new."))\n'
MORE_AGENT = Agent(id="more", provider="scripted", model="script")


def write_app(folder: Path) -> Path:
    """Write the app into a folder."""
    file = folder / "app.py"
    file.write_text(APP)
    return file


def add_to(app: Path, text: str) -> None:
    """Save the app with more in it."""
    app.write_text(APP + text)


def open_gate(app: Path) -> None:
    app.with_name("open").touch()


async def waits_in(polos: Workers, times: int = 1) -> int:
    """Wait until tools have begun to wait so many times; return the process of the last one."""

    def found() -> list[str]:
        return re.findall(r"^worker=\d+ waiting in (\d+) x", polos.output, re.MULTILINE)

    await until(lambda: len(found()) >= times, f"{times} tools that wait")
    return int(found()[times - 1])
