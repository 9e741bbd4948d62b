"""A real Envoy and a real nginx, with the configurations that the documentation gives.

    async with Envoy(tmp_path / "envoy", [service.port]) as envoy:
        client = PolosClient(envoy.address, tls=envoy.tls())

What must differ on this machine (addresses, folders) is replaced in the files, and what a test
wants to differ: each text that is replaced must stand in the file exactly once.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, ClassVar, Self
from urllib.error import URLError
from urllib.request import Request, urlopen

import grpc
import pytest
import trustme

from polos import Agent, PolosClient
from chaos.process import Process, free_port, inherited, listens
from tests.docs.pages import ROOT
from tests.support.process import PATIENCE

APP = """
from polos import Agent, scripted

words = [part for n in range(50) for part in (scripted.say([f"word{n} "]), scripted.pause(0.1))]

talker = Agent("talker", "scripted", scripted.script("Hello world"))
reciter = Agent("reciter", "scripted", scripted.script(scripted.turn(*words)))
sleeper = Agent("sleeper", "scripted", scripted.script(scripted.turn("No", scripted.pause())))

def quiet(seconds):
    turn = scripted.turn("Wait", scripted.pause(seconds), "ed")
    return Agent(f"quiet-{seconds}", "scripted", scripted.script(turn))

quiet_12, quiet_35, quiet_70 = quiet(12), quiet(35), quiet(70)
"""
"""Agents: one answers, one speaks for five seconds, one until it is cancelled, others are silent."""

EXAMPLES = ROOT / "examples" / "proxies"
"""Where the configurations are."""

def agent(id: str) -> Agent:
    """Return the agent of APP that has this id, as callers know it."""
    return Agent(id, "scripted", "script")


NAMES = ("polos-1.internal", "polos-2.internal")
"""What the configurations call the replicas."""

PORT = 50051
"""Where the replicas listen, in the configurations."""


def changed(text: str, changes: Mapping[str, str]) -> str:
    """Return the text with each of the texts replaced, of which each must stand in it once."""
    for old, new in changes.items():
        assert text.count(old) == 1, f"{old!r} stands {text.count(old)} times in the configuration"
        text = text.replace(old, new)
    return text


def program(name: str, *folders: Path) -> str:
    """Return the path of a program; skip where it is not installed."""
    path = os.pathsep.join([*map(str, folders), os.environ.get("PATH", "")])
    if found := shutil.which(name, path=path):
        return found
    reason = f"{name} is not installed; `make test-peers` does that"
    if os.environ.get("CI") == "true":
        pytest.fail(reason)
    pytest.skip(reason)


class Proxy(Process):
    """A proxy in front of services on this machine; an async context manager.

    Attributes:
        port: where it listens.
        authority: issues its certificate, and those of callers.

    """

    example: ClassVar[str]

    def __init__(
        self,
        folder: Path,
        services: Sequence[int],
        changes: Mapping[str, str] | None = None,
        *,
        mtls: bool = False,
    ) -> None:
        """Prepare.

        Args:
            folder: where it keeps its files.
            services: the ports of one or two replicas.
            changes: what is replaced in the configuration.
            mtls: whether callers need a certificate.

        """
        folder.mkdir()
        super().__init__(folder / "output")
        self.port = free_port()
        self.authority = trustme.CA()
        self._folder = folder
        text = changed((EXAMPLES / self.example).read_text(), changes or {})
        text = text.replace("#m ", "") if mtls else text
        self._file = folder / self.example
        self._file.write_text(self._local(self._served(text, services)))
        own = self.authority.issue_cert("localhost")
        own.private_key_pem.write_to_path(folder / "server.key")
        for blob in own.cert_chain_pems:
            blob.write_to_path(folder / "server.pem", append=True)
        self.authority.cert_pem.write_to_path(folder / "callers.pem")

    async def __aenter__(self) -> Self:
        try:
            await self.start()
        except BaseException:
            await self.end()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.end()

    @property
    def address(self) -> str:
        """Where it listens, as clients take it."""
        return f"localhost:{self.port}"

    def tls(self, *, named: bool = False) -> grpc.ChannelCredentials:
        """Return what a caller needs; `named`: with a certificate of its own."""
        roots = self.authority.cert_pem.bytes()
        if not named:
            return grpc.ssl_channel_credentials(roots)
        own = self.authority.issue_cert("caller.example")
        chain = b"".join(blob.bytes() for blob in own.cert_chain_pems)
        return grpc.ssl_channel_credentials(roots, own.private_key_pem.bytes(), chain)

    def client(self, **more: Any) -> PolosClient:
        """Return a client of the service behind it."""
        return PolosClient(self.address, **{"tls": self.tls(), "reconnect_timeout": PATIENCE} | more)

    def channel(self) -> grpc.aio.Channel:
        """Return a bare channel to the service behind it."""
        return grpc.aio.secure_channel(self.address, self.tls())

    async def start(self) -> None:
        """Start it, and return when it passes calls on."""
        await self.spawn(self._command(), inherited())
        try:
            async with asyncio.timeout(PATIENCE):
                while not await self._ready():
                    assert self.alive, f"it ended:\n{self.output()}"
                    await asyncio.sleep(0.02)
        except TimeoutError:
            raise AssertionError(f"it is not ready:\n{self.output()}") from None

    def _served(self, text: str, services: Sequence[int]) -> str:
        """Return the text with the services' ports; a line that names no replica left is removed."""
        lines = []
        for line in text.splitlines():
            number = next((n for n, name in enumerate(NAMES) if name in line), None)
            if number is None:
                lines.append(line)
            elif number < len(services):
                local = line.replace(NAMES[number], "127.0.0.1")
                lines.append(local.replace(str(PORT), str(services[number])))
        return "\n".join(lines) + "\n"

    def _local(self, text: str) -> str:
        raise NotImplementedError

    def _command(self) -> Sequence[str]:
        raise NotImplementedError

    async def _ready(self) -> bool:
        raise NotImplementedError


class Envoy(Proxy):
    """Envoy."""

    example = "envoy.yaml"

    def __init__(self, folder: Path, services: Sequence[int], *args: Any, **more: Any) -> None:
        """Prepare, as every proxy."""
        self._admin = free_port()
        self._services = len(services)
        super().__init__(folder, services, *args, **more)

    def _local(self, text: str) -> str:
        return changed(
            text.replace("/etc/envoy/", f"{self._folder}/"),
            {
                "address: 0.0.0.0, port_value: 8443": f"address: 127.0.0.1, port_value: {self.port}",
                "port_value: 9901": f"port_value: {self._admin}",
            },
        )

    def _command(self) -> Sequence[str]:
        envoy = program("envoy", Path(sys.executable).parent)
        fast = ("--concurrency", "1", "--disable-hot-restart", "--log-level", "warning")
        return (envoy, "-c", str(self._file), *fast)

    async def _ready(self) -> bool:
        with suppress(OSError, URLError):
            healthy = (await self.stats("cluster.polos.membership_healthy")).values()
            return list(healthy) == [self._services]
        return False

    async def stats(self, pattern: str) -> dict[str, int]:
        """Return the counters and gauges whose names have the pattern."""
        told = json.loads(await self.tell(f"stats?format=json&filter={pattern}", method="GET"))
        return {one["name"]: one["value"] for one in told["stats"] if "name" in one}

    async def stat(self, name: str) -> int:
        """Return a counter or gauge."""
        return (await self.stats(name.replace(".", "\\.") + "$"))[name]

    async def tell(self, path: str, *, method: str = "POST") -> bytes:
        """Call its administration."""
        request = Request(f"http://127.0.0.1:{self._admin}/{path}", method=method)
        return await asyncio.to_thread(fetched, request)


class Nginx(Proxy):
    """nginx."""

    example = "nginx.conf"

    def _local(self, text: str) -> str:
        for system in ("/etc/nginx/", "/var/log/nginx/", "/run/"):
            text = text.replace(system, f"{self._folder}/")
        kinds = ("client_body", "fastcgi", "proxy", "scgi", "uwsgi")
        temporary = " ".join(f"{kind}_temp_path {self._folder}/{kind};" for kind in kinds)
        return changed(
            text,
            {
                "listen 8443": f"listen 127.0.0.1:{self.port}",
                "http {": f"http {{ {temporary}",
            },
        )

    def _command(self) -> Sequence[str]:
        nginx = program("nginx", Path(sys.prefix) / "nginx" / "usr" / "sbin", Path("/usr/sbin"))
        folder = f"{self._folder}/"
        return (nginx, "-p", folder, "-c", str(self._file), "-e", f"{folder}error.log", "-g", "daemon off;")

    async def _ready(self) -> bool:
        return await listens(self.port)

    def said(self) -> str:
        """Return its log of errors."""
        return (self._folder / "error.log").read_text()


def fetched(request: Request) -> bytes:
    """Return what an HTTP server answers."""
    with urlopen(request, timeout=PATIENCE) as response:
        return bytes(response.read())
