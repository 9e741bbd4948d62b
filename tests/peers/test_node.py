"""Node: the program in JavaScript, as the documentation shows it, at a service that is killed."""

from __future__ import annotations

import asyncio
import os
import shutil
from pathlib import Path

import pytest

from tests.docs.pages import ROOT
from tests.support.process import PATIENCE, ServiceProcess, environment
from tests.support.proxies import RECITED, Authority, Envoy, Nginx, Proxy, SecureService
from tests.support.talkers import WRONG, GuardedService, end, write_app

PROGRAM = ROOT / "examples" / "node" / "run.js"
NODE = shutil.which("node")


@pytest.fixture
def app(tmp_path: Path) -> Path:
    """Return the file of the agents."""
    return write_app(tmp_path)


@pytest.fixture
def node() -> str:
    """Return Node; skip where it, or what the program needs, is not installed."""
    if NODE and (PROGRAM.parent / "node_modules").is_dir():
        return NODE
    reason = "Node or examples/node/node_modules is missing: `npm ci` in examples/node installs it"
    if os.environ.get("CI") == "true":
        pytest.fail(reason)
    pytest.skip(reason)


async def start(
    node: str, address: str, agent: str, text: str, **env: str
) -> asyncio.subprocess.Process:
    """Start the program."""
    return await asyncio.create_subprocess_exec(
        *(node, PROGRAM, agent, text),
        env=environment(**{"POLOS_ADDRESS": address} | env),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )


async def test_program_prints_the_answer(node: str, app: Path, tmp_path: Path) -> None:
    async with ServiceProcess(app, tmp_path / "runs.db") as service:
        said = await end(await start(node, service.address, "talker", "Hi."))
    assert said == (0, "Hello world\n3 tokens\n", "")


async def test_program_tells_failed_runs_from_refused_calls(
    node: str, app: Path, tmp_path: Path
) -> None:
    async with ServiceProcess(app, tmp_path / "runs.db") as service:
        failed = await end(await start(node, service.address, "broken", "Hi."))
        refused = await end(await start(node, service.address, "nobody", "Hi."))
    assert failed == (1, "", "\nFAILURE_REASON_MODEL_NOT_FOUND: There is no model.\n")
    assert refused[:2] == (2, "")
    assert refused[2].startswith("AGENT_NOT_FOUND: There is no agent or workflow 'nobody'.")


async def test_program_goes_on_after_the_service_was_killed(
    node: str, app: Path, tmp_path: Path
) -> None:
    async with ServiceProcess(app, tmp_path / "runs.db") as service:
        program = await start(node, service.address, "cut-off", "Hi.")
        assert program.stdout is not None
        before = await asyncio.wait_for(program.stdout.readexactly(2), PATIENCE)
        await service.kill()
        await service.start()
        code, after, _ = await end(program)
    assert (code, before) == (0, b"No")
    assert after.startswith("\n[llm:1 starts over: ")
    assert "]\nYes.\n" in after


async def test_program_calls_over_tls_with_a_key_that_it_sends_nowhere_else(
    node: str, tmp_path: Path
) -> None:
    async with GuardedService(tmp_path) as service:
        settings = service.caller
        said = await end(await start(node, service.address, "talker", "Hi.", **settings))
        settings["POLOS_API_KEY"] = WRONG
        refused = await end(await start(node, service.address, "talker", "Hi.", **settings))
    exposed = await end(
        await start(node, "polos.example:50051", "talker", "Hi.", POLOS_API_KEY=WRONG)
    )
    assert said == (0, "Hello world\n3 tokens\n", "")
    assert refused == (2, "", "UNAUTHENTICATED: There is no such API key.\n")
    told = "the API key would travel to polos.example:50051 in plaintext; set POLOS_TLS=1\n"
    assert exposed == (2, "", told)


@pytest.mark.parametrize("kind", [Envoy, Nginx], ids=["envoy", "nginx"])
async def test_program_goes_on_through_a_proxy(
    node: str, kind: type[Proxy], tmp_path: Path
) -> None:
    authority = Authority()
    async with (
        SecureService(tmp_path / "service", authority) as service,
        kind(tmp_path / "proxy", authority, [service.port]) as proxy,
    ):
        trusted = str(tmp_path / "proxy" / "authority.pem")
        program = await start(node, proxy.address, "reciter", "Hi.", POLOS_TLS=trusted)
        assert program.stdout is not None
        before = await asyncio.wait_for(program.stdout.readexactly(len("word0")), PATIENCE)
        await service.kill()
        await service.start()
        code, after, _ = await end(program)
    assert (code, before) == (0, b"word0")
    begun, _, again = after.partition("\n[llm:1 starts over: ")
    assert RECITED.startswith(f"word0{begun}")
    assert RECITED in again
