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
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, ClassVar, Self
from urllib.error import URLError
from urllib.request import Request, urlopen

import grpc
import pytest
import trustme

from chaos.process import Process, free_port, inherited, listens
from polos import Agent, AgentStream, PolosClient
from tests.docs.pages import ROOT
from tests.support.process import PATIENCE, ServiceProcess

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
"""Agents: one answers, one speaks for five seconds, one never ends, others are silent for long."""

RECITED = "".join(f"word{n} " for n in range(50))
"""What the one that speaks for five seconds says."""

EXAMPLES = ROOT / "examples" / "proxies"
"""Where the configurations are."""


def agent(id: str) -> Agent:
    """Return the agent of APP that has this id, as callers know it."""
    return Agent(id, "scripted", "script")


async def whole(stream: AgentStream, speaks: asyncio.Event | None = None) -> str:
    """Read a stream to its end; each event must come once, in order. Return the text.

    `speaks` is set when the first text has come.
    """
    sequences, texts = [], []
    async for event in stream.events:
        sequences.append(event.sequence_id)
        if event.event_type == "text_delta":
            texts.append(event.data["content"])
            if speaks is not None:
                speaks.set()
    assert sequences == list(range(1, len(sequences) + 1))
    assert event.event_type == "agent_finish"
    return "".join(texts)


async def recited(client: PolosClient, number: int) -> list[asyncio.Task[str]]:
    """Start so many runs that speak for seconds; return their readers once all have some text."""
    streams = await asyncio.gather(*(agent("reciter").stream(client, "Hi") for _ in range(number)))
    speaking = [asyncio.Event() for _ in streams]
    reading = [asyncio.create_task(whole(*pair)) for pair in zip(streams, speaking, strict=True)]
    async with asyncio.timeout(PATIENCE):
        await asyncio.gather(*(one.wait() for one in speaking))
    return reading


async def started(client: PolosClient) -> list[str]:
    """Return the ids of all runs."""
    return [run.run_id async for run in client.list_runs()]


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


class Authority:
    """Issues certificates; proxies, services and callers trust it."""

    def __init__(self) -> None:
        self._ca = trustme.CA()

    def certify(self, folder: Path, name: str, *hosts: str) -> None:
        """Write NAME.pem and NAME.key for these hosts into a folder, and authority.pem."""
        issued = self._ca.issue_cert(*hosts)
        issued.private_key_pem.write_to_path(folder / f"{name}.key")
        chain = b"".join(blob.bytes() for blob in issued.cert_chain_pems)
        (folder / f"{name}.pem").write_bytes(chain)
        self._ca.cert_pem.write_to_path(folder / "authority.pem")

    def settings(self, folder: Path) -> dict[str, Any]:
        """Return settings with which a service in this process has TLS."""
        self.certify(folder, "polos", "polos.internal")
        return {"tls_cert": folder / "polos.pem", "tls_key": folder / "polos.key"}

    def credentials(self, name: str | None = None) -> grpc.ChannelCredentials:
        """Return what a caller needs; with a name, it has a certificate of its own."""
        roots = self._ca.cert_pem.bytes()
        if name is None:
            return grpc.ssl_channel_credentials(roots)
        own = self._ca.issue_cert(name)
        chain = b"".join(blob.bytes() for blob in own.cert_chain_pems)
        return grpc.ssl_channel_credentials(roots, own.private_key_pem.bytes(), chain)


class SecureService(ServiceProcess):
    """`polos serve` of APP, over TLS; only who has a certificate of the authority can call it."""

    def __init__(
        self, folder: Path, authority: Authority, store: str | None = None, **env: str
    ) -> None:
        """Keep everything in `folder`, the runs too unless there is another store."""
        folder.mkdir()
        authority.certify(folder, "polos", "polos.internal")
        (folder / "app.py").write_text(APP)
        options = (
            *("--tls-cert", str(folder / "polos.pem")),
            *("--tls-key", str(folder / "polos.key")),
            *("--tls-client-ca", str(folder / "authority.pem")),
        )
        super().__init__(folder / "app.py", store or folder / "runs.db", *options, **env)


class Proxy(Process, ABC):
    """A proxy in front of services on this machine; an async context manager.

    Attributes:
        port: where it listens.

    """

    example: ClassVar[str]

    def __init__(
        self,
        folder: Path,
        authority: Authority,
        services: Sequence[int],
        changes: Mapping[str, str] | None = None,
        *,
        mtls: bool = False,
    ) -> None:
        """Prepare.

        Args:
            folder: where it keeps its files.
            authority: issues its certificate.
            services: the ports of one or two replicas.
            changes: what is replaced in the configuration.
            mtls: whether callers need a certificate.

        """
        folder.mkdir()
        super().__init__(folder / "output")
        self.port = free_port()
        self._authority = authority
        self._folder = folder
        text = changed((EXAMPLES / self.example).read_text(), changes or {})
        text = text.replace("#m ", "") if mtls else text
        self._file = folder / self.example
        self._file.write_text(self._local(self._served(text, services)))
        authority.certify(folder, "server", "localhost")

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

    def client(self, **more: Any) -> PolosClient:
        """Return a client of the service behind it."""
        options: dict[str, Any] = {
            "tls": self._authority.credentials(),
            "reconnect_timeout": PATIENCE,
            **more,
        }
        return PolosClient(self.address, **options)

    def channel(self) -> grpc.aio.Channel:
        """Return a bare channel to the service behind it."""
        return grpc.aio.secure_channel(self.address, self._authority.credentials())

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
        """Return the text with the services' ports, without the lines of other replicas."""
        lines = []
        for line in text.splitlines():
            number = next((n for n, name in enumerate(NAMES) if name in line), None)
            if number is None:
                lines.append(line)
            elif number < len(services):
                local = line.replace(NAMES[number], "127.0.0.1")
                lines.append(local.replace(str(PORT), str(services[number])))
        return "\n".join(lines) + "\n"

    @abstractmethod
    def _local(self, text: str) -> str:
        """Return the documented configuration for this machine."""

    @abstractmethod
    def _command(self) -> Sequence[str]:
        """Return the command that starts it."""

    @abstractmethod
    async def _ready(self) -> bool:
        """Return whether it passes calls on."""


class Envoy(Proxy):
    """Envoy."""

    example = "envoy.yaml"

    def __init__(
        self, folder: Path, authority: Authority, services: Sequence[int], *args: Any, **more: Any
    ) -> None:
        """Prepare, as every proxy."""
        self._admin = free_port()
        self._services = len(services)
        super().__init__(folder, authority, services, *args, **more)

    def _local(self, text: str) -> str:
        here = f"address: 127.0.0.1, port_value: {self.port}"
        return changed(
            text.replace("/etc/envoy/", f"{self._folder}/"),
            {
                "address: 0.0.0.0, port_value: 8443": here,
                "port_value: 9901": f"port_value: {self._admin}",
            },
        )

    def _command(self) -> Sequence[str]:
        envoy = program("envoy", Path(sys.executable).parent)
        fast = ("--concurrency", "1", "--disable-hot-restart", "--log-level", "warning")
        return (envoy, "-c", str(self._file), *fast)

    async def _ready(self) -> bool:
        return await self.healthy()

    async def healthy(self) -> bool:
        """Return whether it listens, and finds all replicas healthy."""
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
        return (
            nginx,
            "-p",
            folder,
            "-c",
            str(self._file),
            "-e",
            f"{folder}error.log",
            "-g",
            "daemon off;",
        )

    async def _ready(self) -> bool:
        return await listens(self.port)

    def calls(self) -> list[str]:
        """Return its log of calls, of those that have ended."""
        return (self._folder / "access.log").read_text().splitlines()

    def said(self) -> str:
        """Return its log of errors."""
        return (self._folder / "error.log").read_text()


def fetched(request: Request) -> bytes:
    """Return what an HTTP server answers."""
    with urlopen(request, timeout=PATIENCE) as response:
        return bytes(response.read())
