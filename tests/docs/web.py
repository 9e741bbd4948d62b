"""The page of the guide for SSE endpoints, served as its reader does."""

from __future__ import annotations

import asyncio
import re
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from tests.docs.pages import DOCS, write_files
from tests.support.process import PATIENCE, environment

FROM_SSE = DOCS / "guides" / "from-sse.md"


@asynccontextmanager
async def web_page(folder: Path, env: dict[str, str]) -> AsyncIterator[str]:
    """Run the page, with the README's agent in `folder`; give its address."""
    write_files(FROM_SSE, folder)
    web = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "uvicorn", "web:app", "--port", "0"),
        cwd=folder,
        env=environment(**env),
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        yield await asyncio.wait_for(listening(web), PATIENCE)
    finally:
        web.terminate()
        await web.communicate()


async def listening(web: asyncio.subprocess.Process) -> str:
    """Return the address that a server says it listens on."""
    assert web.stderr is not None
    async for line in web.stderr:
        if match := re.search(rb"running on (http://\S+)", line):
            return match[1].decode()
    raise AssertionError("the server ended without listening")
