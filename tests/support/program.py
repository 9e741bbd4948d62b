"""Programs of the examples, as a user starts them: processes of their own."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

from tests.support.process import PATIENCE, environment

ROOT = Path(__file__).resolve().parents[2]
AGENTS = Path("examples", "agents.py")


@asynccontextmanager
async def program(
    *arguments: str, address: str, **env: str
) -> AsyncIterator[asyncio.subprocess.Process]:
    """Run `python -m ...` against the service at `address`; it does not outlive the block."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", *arguments),
        cwd=ROOT,
        env=environment(POLOS_ADDRESS=address, PYTHONUTF8="1", **env),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        yield process
    finally:
        with suppress(ProcessLookupError):
            process.kill()
        # What it still printed must be read, else its pipe stays open.
        await process.communicate()


async def printed(*arguments: str, address: str, **env: str) -> str:
    """Run a program to its end, which must be a good one; return what it printed."""
    async with program(*arguments, address=address, **env) as process:
        output, _ = await asyncio.wait_for(process.communicate(), PATIENCE)
    text = output.decode()
    assert process.returncode == 0, text
    return text


async def line_of(process: asyncio.subprocess.Process, part: str) -> str:
    """Wait for a line that contains `part`, and return it."""
    assert process.stdout is not None
    seen: list[str] = []
    async with asyncio.timeout(PATIENCE):
        async for line in process.stdout:
            seen.append(line.decode().rstrip("\n"))
            if part in seen[-1]:
                return seen[-1]
    raise AssertionError(f"it ended without saying {part!r}:\n" + "\n".join(seen))
