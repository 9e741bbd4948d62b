"""A model provider that does its worst: a real HTTP server in a process of its own.

    with hostile_provider() as hostile:
        model = openai(base_url=hostile.url("error-endless"))
        ...
        assert (await hostile.seen("error-endless")).sent < 1_000_000

What it does stands in the path, so that each agent chooses by its `provider_base_url`, and any
number of them at once. `BEHAVIOURS` of
`tests.support.hostile_behaviours` has all names, each with a sentence. A behaviour ends, at the
latest, when the client hangs up. By hand: `python -m tests.support.hostile_provider`, which prints
the address and serves until its standard input ends.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any

from tests.support.hostile_behaviours import BEHAVIOURS, Exchange, Seen


class Hostile:
    """The server, as a test sees it."""

    def __init__(self, address: str) -> None:
        self._address = address

    def url(self, name: str, user: str = "") -> str:
        """Return the base URL at which it behaves so; `user` is `USER:PASSWORD`."""
        if name not in BEHAVIOURS:
            raise KeyError(name)
        return f"http://{user}{'@' if user else ''}{self._address}/{name}/v1"

    async def seen(self, name: str) -> Seen:
        """Return what it saw of that behaviour."""
        reader, writer = await asyncio.open_connection(*self._address.split(":"))
        writer.write(b"GET /seen HTTP/1.1\r\n\r\n")
        told = json.loads(await reader.read())
        writer.close()
        return Seen(**told.get(name, {}))

    async def left(self, name: str) -> Seen:
        """Wait until every client of that behaviour has hung up; return what it saw."""
        while (seen := await self.seen(name)).open:
            await asyncio.sleep(0.01)
        return seen


@contextmanager
def hostile_provider() -> Iterator[Hostile]:
    """Run the server in a process of its own; a fixture of any scope can do it."""
    command = [sys.executable, "-m", "tests.support.hostile_provider"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as one:
        assert one.stdout is not None
        yield Hostile(one.stdout.readline().strip())  # leaving closes its input, and it ends


async def _serve() -> None:
    everything: defaultdict[str, Seen] = defaultdict(Seen)

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            await _exchange(reader, writer, everything)
        writer.close()

    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    host, port = server.sockets[0].getsockname()
    print(f"{host}:{port}", flush=True)  # noqa: T201 - this is how it tells
    await asyncio.to_thread(sys.stdin.read)
    os._exit(0)  # whatever is under way


async def _exchange(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, everything: dict[str, Seen]
) -> None:
    first, *lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").strip().split("\r\n")
    name = first.split()[1].split("/")[1]
    if name == "seen":
        writer.write(json.dumps({key: asdict(seen) for key, seen in everything.items()}).encode())
        await writer.drain()
        return
    headers = {key.lower(): value.strip() for key, _, value in (x.partition(":") for x in lines)}
    if name != "error-unread":
        await reader.readexactly(int(headers.get("content-length", 0)))
    seen = everything[name]
    seen.requests += 1
    seen.open += 1
    seen.cookies += "cookie" in headers
    acting: asyncio.Future[Any] = asyncio.ensure_future(
        BEHAVIOURS[name](Exchange(headers, writer, seen))
    )
    leaving = asyncio.ensure_future(_end(reader))
    try:
        await asyncio.wait({acting, leaving}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        seen.open -= 1
        for task in (acting, leaving):
            task.cancel()
        await asyncio.gather(acting, leaving, return_exceptions=True)


async def _end(reader: asyncio.StreamReader) -> None:
    """Return when the client has hung up; what it sends on is not read."""
    while not reader.at_eof():
        await asyncio.sleep(0.01)


if __name__ == "__main__":
    asyncio.run(_serve())
