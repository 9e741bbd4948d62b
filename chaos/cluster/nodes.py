"""Real `nats-server` processes that make a cluster on loopback."""

from __future__ import annotations

import asyncio
import json
import shutil
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.request import urlopen

from chaos.process import PATIENCE, Process, free_port, inherited

BINARY = shutil.which("nats-server", path=str(Path(sys.executable).parent)) or "nats-server"
"""The program: that of this environment, or any."""

ANSWER = 1.0
"""Seconds in which a server answers how it is."""

PAUSE = 0.1
"""Seconds between two looks."""

CONFIGURATION = """
server_name: {name}
listen: "127.0.0.1:{port}"
http: "127.0.0.1:{monitor}"
jetstream {{ store_dir: "{folder}" }}
cluster {{
  name: chaos
  listen: "127.0.0.1:{route}"
  routes: [{routes}]
  no_advertise: true  # clients know no way but their links
}}
"""
"""The configuration of a server."""


class Node(Process):
    """A server of NATS; it keeps ports and folder when it starts again.

    Attributes:
        name: what the cluster knows it by.
        port: where clients come in.
        route: where the other servers come in.

    """

    def __init__(self, name: str, folder: Path) -> None:
        """Keep everything in `folder`."""
        super().__init__(folder / f"{name}.log")
        self.name = name
        self.port = free_port()
        self.route = free_port()
        self._monitor = free_port()
        self._folder = folder

    def configure(self, routes: Sequence[int]) -> None:
        """Tell it where the servers of its cluster find each other."""
        told = CONFIGURATION.format(
            name=self.name,
            port=self.port,
            monitor=self._monitor,
            folder=self._folder / self.name,
            route=self.route,
            routes=", ".join(f'"nats://127.0.0.1:{port}"' for port in routes),
        )
        self._file.write_text(told)

    async def start(self) -> None:
        """Start it; `healthy` tells when it has caught up."""
        await self.spawn((BINARY, "-c", str(self._file)), inherited())

    async def healthy(self) -> bool:
        """Return whether it has all that the cluster has."""
        return await self.look("healthz") is not None

    async def look(self, path: str) -> Any:
        """Return what its monitoring says; None if it says nothing, or that it is unwell."""
        with suppress(OSError, URLError, ValueError):
            return await asyncio.to_thread(fetch, f"http://127.0.0.1:{self._monitor}/{path}")
        return None

    @property
    def _file(self) -> Path:
        return self._folder / f"{self.name}.conf"


class Nodes:
    """The servers of a cluster."""

    def __init__(self, size: int, folder: Path) -> None:
        """Keep everything in `folder`."""
        self.all = [Node(f"n{number}", folder) for number in range(size)]
        for node in self.all:
            node.configure([one.route for one in self.all])

    async def start(self) -> None:
        """Start them, and return when they are a cluster."""
        await asyncio.gather(*(node.start() for node in self.all))
        await self.whole()

    async def whole(self) -> None:
        """Wait until each has all that the cluster has.

        Raises:
            TimeoutError: one has not, for a long time.

        """
        end = time.monotonic() + PATIENCE
        while not all([await node.healthy() for node in self.all]):
            if time.monotonic() > end:
                raise TimeoutError(f"NATS does not become whole:\n{self.output()}")
            await asyncio.sleep(PAUSE)

    async def leader(self, stream: str) -> Node:
        """Return the server that leads a stream.

        Raises:
            TimeoutError: none does, for a long time.

        """
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end:
            for node in self.all:
                name = leader_in(await node.look("jsz?streams=true"), stream)
                for one in self.all:
                    if one.name == name:
                        return one
            await asyncio.sleep(PAUSE)
        raise TimeoutError(f"Nobody leads {stream}:\n{self.output()}")

    def output(self) -> str:
        """Return what the servers printed."""
        return "".join(node.output() for node in self.all)


def fetch(url: str) -> Any:
    """Return the JSON at an address of this machine."""
    with urlopen(url, timeout=ANSWER) as answer:  # noqa: S310 - the caller says http://127.0.0.1
        return json.load(answer)


def leader_in(told: Any, stream: str) -> str | None:
    """Return who leads a stream, in the words of a server's monitoring."""
    for account in (told or {}).get("account_details", ()):
        for one in account.get("stream_detail", ()):
            if one["name"] == stream:
                return str(one.get("cluster", {}).get("leader", ""))
    return None
