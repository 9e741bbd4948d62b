"""What `polos serve` says of agents whose calls will fail, and providers of installed packages."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from polos import Agent, PolosClient, RunFailed
from polos_service.models.access import KEYS
from tests.support.mock_answers import finish, say, tokens
from tests.support.mock_provider import MockProvider
from tests.support.plugin import install
from tests.support.process import ServiceProcess

AGENTS = """
from polos import Agent, scripted

keyless = Agent("keyless", "openai", "m")
grey = Agent("grey", "groq", "m")
cloud = Agent("cloud", "azure", "m")
elsewhere = Agent("elsewhere", "openai", "m", provider_base_url="https://eu.api.openai.com/v1")
near = Agent("near", "openai", "m", provider_base_url="http://127.0.0.1:9/v1")
local = Agent("local", "ollama", "m")
proxy = Agent("proxy", "litellm", "m")
own = Agent("own", "vllm", "m")
known = Agent("known", "mistral", "m")
actor = Agent("actor", "scripted", scripted.script("Hi."))
"""

PLUGGED = """
from polos import Agent

row = Agent("row", "acme", "m")
echo = Agent("echo", "echo", "m", provider_llm_api="loud")
"""


async def test_a_start_says_which_agents_lack_what(tmp_path: Path) -> None:
    app = tmp_path / "app.py"
    app.write_text(AGENTS)
    async with ServiceProcess(app, tmp_path / "runs.db", MISTRAL_API_KEY="k") as service:
        lines = [line for line in service.lines if "will fail" in line]
        printed = [line for line in lines if line.startswith("  agent ")]
        logged = "\n".join(line for line in lines if line not in printed)
        async with PolosClient(service.address) as client:
            with pytest.raises(RunFailed, match="set GROQ_API_KEY in the environment"):
                await Agent("grey", "groq", "m").run(client, "Go.")
    assert printed == [
        "  agent cloud: calls to azure will fail: AZURE_OPENAI_ENDPOINT is not set",
        f"  agent elsewhere: calls to openai will fail: {KEYS} has no key for eu.api.openai.com",
        "  agent grey: calls to groq will fail: GROQ_API_KEY is not set",
        "  agent keyless: calls to openai will fail: OPENAI_API_KEY is not set",
    ]
    assert logged.count("model_calls_will_fail") == len(printed)
    assert "calls to groq will fail: GROQ_API_KEY is not set" in logged


async def test_a_provider_of_an_installed_package_serves_agents(
    tmp_path: Path, provider: MockProvider, installed: Path
) -> None:
    provider.reply(say("Hello"), finish(usage=tokens(5, 2)))
    app = tmp_path / "app.py"
    app.write_text(PLUGGED)
    packages = tmp_path / "packages"
    packages.mkdir()
    variables = {"ACME_BASE_URL": provider.url, "ACME_API_KEY": "the-key", "ECHO_SIGN": "!"}
    path = f"{install(packages)}{os.pathsep}{installed}"
    async with (
        ServiceProcess(app, tmp_path / "runs.db", PYTHONPATH=path, **variables) as service,
        PolosClient(service.address) as client,
    ):
        results = [
            await Agent(name, "of-the-service", "m").run(client, "Go.") for name in ("row", "echo")
        ]
    assert [one.result for one in results] == ["Hello", "GO.!"]
    assert "will fail" not in service.output
    assert provider.requests[0].headers["authorization"] == "Bearer the-key"
