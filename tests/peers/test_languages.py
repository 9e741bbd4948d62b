"""Go, TypeScript and Java: generated from the protocol, and run at a service that is killed."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import sysconfig
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.docs.pages import ROOT
from tests.support.process import PATIENCE, ServiceProcess, environment
from tests.support.talkers import WRONG, GuardedService, end, write_app

EXAMPLES = ROOT / "examples"
BUF = str(Path(sysconfig.get_path("scripts")) / "buf")

BUILD_SECONDS = 300
"""Seconds for which generating and building may take: dependencies are fetched the first time."""


@dataclass(frozen=True, kw_only=True)
class Language:
    """How a program is made and run, as docs/other-languages.md says.

    Attributes:
        name: the folder in examples.
        builds: commands that generate code, and build or check it.
        runs: the command that runs it, before the agent and the input.

    """

    name: str
    builds: Sequence[Sequence[str]]
    runs: Sequence[str]


LANGUAGES = [
    Language(
        name="go",
        builds=[(BUF, "generate"), ("go", "vet", "."), ("go", "build", "-o", "gen/run", ".")],
        runs=("gen/run",),
    ),
    Language(
        name="typescript",
        builds=[("npx", "buf", "generate"), ("npx", "tsc", "--noEmit")],
        runs=("npx", "tsx", "run.ts"),
    ),
    Language(
        name="java",
        builds=[("mvn", "--quiet", "--batch-mode", "package", "dependency:copy-dependencies")],
        runs=("java", "-cp", "target/classes:target/dependency/*", "dev.polos.example.Run"),
    ),
]


@pytest.fixture(scope="module", params=LANGUAGES, ids=lambda language: language.name)
def language(request: pytest.FixtureRequest) -> Language:
    """Return a language whose program is built; skip where its tools are not installed."""
    found: Language = request.param
    folder = EXAMPLES / found.name
    tools = {command[0] for command in found.builds}
    missing = [one for one in tools if not shutil.which(one)]
    if found.name == "typescript" and not (folder / "node_modules").is_dir():
        missing.append("examples/typescript/node_modules (`npm ci` installs it)")
    if missing:
        reason = f"{', '.join(missing)} is missing"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    for command in found.builds:
        subprocess.run(command, check=True, cwd=folder, timeout=BUILD_SECONDS)
    return found


async def start(
    language: Language, address: str, agent: str, **env: str
) -> asyncio.subprocess.Process:
    """Start the program."""
    return await asyncio.create_subprocess_exec(
        *(*language.runs, agent, "Hi."),
        cwd=EXAMPLES / language.name,
        env=environment(**{"POLOS_ADDRESS": address} | env),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )


@pytest.mark.timeout(2 * BUILD_SECONDS)
async def test_it_prints_the_answer_and_tells_failures_apart(
    language: Language, tmp_path: Path
) -> None:
    async with ServiceProcess(write_app(tmp_path), tmp_path / "runs.db") as service:
        said = await end(await start(language, service.address, "talker"))
        failed = await end(await start(language, service.address, "broken"))
        refused = await end(await start(language, service.address, "nobody"))
    assert said == (0, "Hello world\n3 tokens\n", "")
    assert failed[0] == 1
    assert "\nFAILURE_REASON_MODEL_NOT_FOUND: There is no model." in failed[2]
    assert refused[0] == 2
    assert "AGENT_NOT_FOUND: There is no agent or workflow 'nobody'." in refused[2]


@pytest.mark.timeout(2 * BUILD_SECONDS)
async def test_it_goes_on_after_the_service_was_killed(language: Language, tmp_path: Path) -> None:
    async with ServiceProcess(write_app(tmp_path), tmp_path / "runs.db") as service:
        program = await start(language, service.address, "cut-off")
        assert program.stdout is not None
        before = await asyncio.wait_for(program.stdout.readexactly(2), PATIENCE)
        await service.kill()
        await service.start()
        code, after, _ = await end(program)
    assert (code, before) == (0, b"No")
    assert after.startswith("\n[llm:1 starts over: ")
    assert "]\nYes.\n" in after


@pytest.mark.timeout(2 * BUILD_SECONDS)
async def test_it_calls_over_tls_with_a_key_that_it_sends_nowhere_else(
    language: Language, tmp_path: Path
) -> None:
    async with GuardedService(tmp_path) as service:
        settings = service.caller
        said = await end(await start(language, service.address, "talker", **settings))
        settings["POLOS_API_KEY"] = WRONG
        refused = await end(await start(language, service.address, "talker", **settings))
    exposed = await end(await start(language, "polos.example:50051", "talker", POLOS_API_KEY=WRONG))
    assert said == (0, "Hello world\n3 tokens\n", "")
    assert refused == (2, "", "UNAUTHENTICATED: There is no such API key.\n")
    told = "the API key would travel to polos.example:50051 in plaintext; set POLOS_TLS=1\n"
    assert exposed == (2, "", told)
