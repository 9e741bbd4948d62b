"""The command `polos` in a process of its own: in pipes, or on a terminal."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import fcntl
import json
import os
import pty
import re
import struct
import sys
import termios
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support.process import PATIENCE, POLOS, environment, until

APP = """
import asyncio
from pathlib import Path

from polos import Agent, tool
from polos import scripted as say


@tool(description="Add two numbers")
async def add(a: int, b: int) -> int:
    return a + b


@tool(description="Never works")
async def broken(why: str) -> str:
    raise ValueError(why)


@tool(description="Wait until the gate is open")
async def gate() -> str:
    if not Path(__file__).with_name("open").exists():
        Path(__file__).with_name("waiting").touch()
        await asyncio.Event().wait()
    return "open"


def agent(id, *turns, **more):
    return Agent(id=id, provider="scripted", model=say.script(*turns), **more)


sums = agent(
    "sums",
    say.turn("Let me add.", say.call("add", a=1, b=2), say.call("broken", why="no luck")),
    "The sum is 3.",
    tools=[add, broken],
    description="Adds numbers",
)
retries = agent(
    "retries",
    say.turn("void words", say.pause(0.3), say.cut(), retried=["These count."]),
)
fails = agent("fails", say.turn("Half an", say.fail("model_authentication", "no such key", False)))
waits = agent("waits", say.turn("So far", say.pause()))
short = agent("short", say.turn("Half an", say.finish("length")))
steers = agent("steers", "red \\x1b[31m bell \\x07 end")
slow = agent("slow", say.turn("One", say.pause(0.4), " two."))
gated = agent("gated", say.call("gate"), "Two words.", tools=[gate])
"""


@dataclass(frozen=True)
class Ended:
    """A command that has ended."""

    code: int
    out: str
    err: str

    @property
    def objects(self) -> list[Any]:
        """What it printed as JSON, an object a line."""
        return [json.loads(line) for line in self.out.splitlines()]


@dataclass(frozen=True)
class Cli:
    """The command, told where the service is, and with which API key it is called."""

    address: str
    api_key: str = ""

    async def __call__(self, *arguments: str, input: bytes = b"", **variables: str) -> Ended:
        """Run it to its end, in pipes."""
        process = await self.start(*arguments, stdin=asyncio.subprocess.PIPE, **variables)
        async with asyncio.timeout(PATIENCE):
            out, err = await process.communicate(input)
        assert process.returncode is not None
        return Ended(process.returncode, out.decode(), err.decode())

    async def completed(self, *words: str) -> Ended:
        """Ask it, as bash does, for what the last of the words can be."""
        line = " ".join(["polos", *words])
        return await self(
            _POLOS_COMPLETE="complete_bash", COMP_WORDS=line, COMP_CWORD=str(len(words))
        )

    async def start(
        self, *arguments: str, stdin: int | None = None, **variables: str
    ) -> asyncio.subprocess.Process:
        """Start it in pipes."""
        return await asyncio.create_subprocess_exec(
            POLOS,
            *arguments,
            stdin=asyncio.subprocess.DEVNULL if stdin is None else stdin,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=environment(POLOS_ADDRESS=self.address, POLOS_API_KEY=self.api_key, **variables),
        )

    async def run_ids(self, *filters: str) -> list[str]:
        """Return the ids of the runs, the newest first."""
        return [one["run_id"] for one in (await self("runs", "list", "--json", *filters)).objects]

    async def state(self, run_id: str) -> str:
        """Return where a run stands."""
        return str((await self("runs", "show", run_id, "--json")).objects[0]["state"])

    @contextlib.asynccontextmanager
    async def terminal(self, *arguments: str, columns: int = 120) -> AsyncIterator[Terminal]:
        """Run it on a terminal of its own, for as long as the block."""
        ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 30, columns, 0, 0))
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", TAKE_TERMINAL, str(POLOS), *arguments),
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            env=environment(
                POLOS_ADDRESS=self.address,
                TERM="xterm-256color",
                COLUMNS=str(columns),  # readline in the process that started this one sets it
                LINES="30",
            ),
        )
        os.close(theirs)
        terminal = Terminal(process, ours)
        try:
            yield terminal
        finally:
            if process.returncode is None:
                process.kill()
            await process.wait()
            terminal.close()


TAKE_TERMINAL = """
import fcntl, os, sys, termios
os.setsid()
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
os.execv(sys.argv[1], sys.argv[1:])
"""
"""Makes the terminal on standard input the one whose Ctrl-C reaches the process."""


class Terminal:
    """What a person at the terminal sees and types.

    Attributes:
        raw: all that came, with what steers the terminal.

    """

    def __init__(self, process: asyncio.subprocess.Process, file: int) -> None:
        self.raw = b""
        self._process = process
        self._file = file
        asyncio.get_running_loop().add_reader(file, self._read)

    @property
    def text(self) -> str:
        """All that came, as text alone."""
        plain = re.sub(rb"\x1b\[[0-9;?]*[A-Za-z]", b"", self.raw)
        return plain.decode(errors="replace").replace("\r", "")

    def type(self, keys: str) -> None:
        """Type; Ctrl-C is \\x03, Ctrl-D is \\x04."""
        os.write(self._file, keys.encode())

    async def shows(self, text: str, *, times: int = 1) -> None:
        """Wait until the text has come so often."""
        try:
            await until(lambda: self.text.count(text) >= times, text)
        except AssertionError:
            raise AssertionError(f"{text!r} was not shown:\n{self.text}") from None

    async def ended(self) -> int:
        """Wait until the command has ended, and return its exit code."""
        async with asyncio.timeout(PATIENCE):
            return await self._process.wait()

    def close(self) -> None:
        """Close the terminal."""
        asyncio.get_running_loop().remove_reader(self._file)
        os.close(self._file)

    def _read(self) -> None:
        try:
            self.raw += os.read(self._file, 65536)
        except OSError as error:
            if error.errno != errno.EIO:  # how Linux says that nobody has the other end any more
                raise
            asyncio.get_running_loop().remove_reader(self._file)


def write_app(folder: Path) -> Path:
    """Write the app, and return its file."""
    file = folder / "app.py"
    file.write_text(APP)
    return file
