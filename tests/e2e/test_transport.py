"""`polos serve` over TLS and on a Unix socket, as a user starts it."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path

import grpc
import grpc.aio
import pytest

from polos import PolosClient
from polos.v1.agent_service_pb2 import ListAgentsRequest
from polos.v1.agent_service_pb2_grpc import AgentServiceStub
from polos_service.unix_socket import IN_USE
from tests.support.process import POLOS, ServiceProcess, environment
from tests.support.reader import Events, assert_whole, texts
from tests.support.tls import HOST, Files
from tests.support.waiting_app import MORE, WAITER, add_to, open_gate, waits_in, write_app
from tests.support.workers import Workers, serve

pytestmark = pytest.mark.usefixtures("patient")


@pytest.fixture
def app(tmp_path: Path) -> Path:
    return write_app(tmp_path)


@pytest.fixture
def files(tmp_path: Path) -> Files:
    (tmp_path / "tls").mkdir()
    return Files(tmp_path / "tls")


def options(files: Files) -> tuple[str, ...]:
    return ("--tls-cert", str(files.cert), "--tls-key", str(files.key))


class OnSocket(ServiceProcess):
    """The service on a Unix socket beside its store."""

    @property
    def address(self) -> str:
        return f"unix:{self.path}"

    def __init__(self, app: Path, *options: str) -> None:
        self.path = app.with_name("polos.sock")
        super().__init__(app, app.with_name("runs.db"), *options)


async def polos(*arguments: str) -> tuple[int, str]:
    """Run a command to its end; return its exit code and what it printed."""
    process = await asyncio.create_subprocess_exec(
        POLOS,
        *arguments,
        env=environment(),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    said, _ = await process.communicate()
    assert process.returncode is not None
    return process.returncode, said.decode()


async def test_a_unix_socket_is_for_all_commands_and_survives_a_kill(app: Path) -> None:
    async with OnSocket(app) as service:
        assert await polos("health", "--address", service.address) == (0, "SERVING\n")
        open_gate(app)
        code, said = await polos("run", "waiter", "Go", "--address", service.address)
        assert (code, said.splitlines()) == (0, ["Wait. ", "It is open."])
        code, said = await serve(app, "--listen", service.address, data="other")
        assert code == 1
        assert said == f"Error: Cannot listen on {service.address}: {IN_USE}\n"
        await service.kill()
        assert service.path.exists()
        await service.start()
        assert await polos("health", "--address", service.address) == (0, "SERVING\n")
        service.send(signal.SIGTERM)
        assert await service.ended() == 0
        assert not service.path.exists()


async def test_a_unix_socket_stays_where_it_is_when_the_code_changes(app: Path) -> None:
    async with OnSocket(app, "--reload") as service:
        printed = len(service.lines)
        add_to(app, MORE)
        await service.said(" listens on unix:", after=printed)
        async with PolosClient(service.address) as client:
            assert [agent.agent_id for agent in await client.list_agents()] == ["more", "waiter"]
        service.send(signal.SIGTERM)
        await service.ended()


async def test_workers_share_no_unix_socket(app: Path) -> None:
    listen = f"unix:{app.with_name('polos.sock')}"
    code, said = await serve(app, "--workers", "2", "--listen", listen)
    assert code == 1
    assert "a Unix socket belongs to one process, which excludes --workers" in said


@pytest.mark.parametrize("listen", ["0.0.0.0:0", "[::]:0"])
@pytest.mark.parametrize("workers", [(), ("--workers", "2")])
async def test_plaintext_that_others_may_reach_is_refused(
    app: Path, listen: str, workers: tuple[str, ...]
) -> None:
    code, said = await serve(app, "--listen", listen, *workers)
    assert code == 1
    assert said.startswith(f"Error: Cannot listen on {listen} in plaintext: ")
    assert said.count("\n") == 1


async def test_a_key_of_another_certificate_is_told_in_a_sentence(app: Path, files: Files) -> None:
    files.key.write_bytes(files.authority.issue_cert(HOST).private_key_pem.bytes())
    for workers in ((), ("--workers", "1")):
        code, said = await serve(app, *options(files), "--listen", f"{HOST}:0", *workers)
        assert code == 1
        assert said.startswith("Error: The key in ") or workers
        assert "does not belong to the first certificate" in said
        assert "Traceback" not in said


async def test_reload_keeps_tls(app: Path, files: Files) -> None:
    store = app.with_name("runs.db")
    async with ServiceProcess(app, store, "--reload", *options(files)) as service:
        await agents(service.address, files.trusting())
        service.send(signal.SIGTERM)
        await service.ended()


async def agents(address: str, credentials: grpc.ChannelCredentials) -> None:
    """Assert that the service has its agent, over a connection of its own."""
    own = (("grpc.use_local_subchannel_pool", 1),)
    async with grpc.aio.secure_channel(address, credentials, options=own) as channel:
        answer = await AgentServiceStub(channel).ListAgents(ListAgentsRequest(), timeout=20)
    assert [agent.agent_id for agent in answer.agents] == ["waiter"]


class SecuredWorkers(Workers):
    """Workers with TLS that their options ask for."""

    def __init__(self, app: Path, number: int, files: Files) -> None:
        super().__init__(app, number)
        self._options = (*self._options, *options(files), "--tls-client-ca", str(files.client_ca))


async def test_workers_speak_tls_and_take_new_certificates_each(app: Path, files: Files) -> None:
    credentials = files.trusting(files.clients.issue_cert("me@clients.example"))
    async with SecuredWorkers(app, 2, files) as service:
        async with PolosClient(service.address, tls=credentials) as client:
            stream = await WAITER.stream(client, "Go")
            async with Events(stream.events) as read:
                await waits_in(service)
                files.write(files.authority.issue_cert(HOST))
                for _ in range(10):  # each connection reaches one of the workers
                    await agents(service.address, credentials)
                with pytest.raises(grpc.aio.AioRpcError):
                    await agents(service.address, files.trusting())
                open_gate(app)
                log = await read.all()
        assert_whole(log)
        assert "".join(texts(log)) == "Wait. It is open."
        loaded = [line for line in service.lines if "tls_files_loaded" in line]
        assert len(loaded) > 2
        service.send(signal.SIGTERM)
        assert await service.ended() == 0
