"""The README's agent is short, and scripts for the shell and the web page work with it."""

from __future__ import annotations

import asyncio
import json
import sysconfig
from pathlib import Path
from typing import Any
from urllib.parse import quote
from urllib.request import urlopen
from xml.etree import ElementTree as ET

from chaos.process import free_port
from tests.docs.obliging import ANSWER, ObligingProvider, weather_service
from tests.docs.pages import DOCS, README, blocks_of, write_files
from tests.docs.web import web_page
from tests.support.process import PATIENCE

DEFAULT_ADDRESS, SECOND_ADDRESS = "127.0.0.1:50051", "127.0.0.1:50052"
NATS_ADDRESS = "127.0.0.1:4222"

WHILE_BOTH_SERVE = """
trap 'kill $(jobs -p); wait' EXIT
{{
{serve}
}} > log 2>&1
until polos health --address {one} && polos health --address {other}; do sleep 0.1; done &> health
{then}
"""


async def shell(script: str, env: dict[str, str]) -> str:
    """Run a script beside the project's own tools, and return what it printed."""
    address = env["POLOS_ADDRESS"]
    running = await asyncio.create_subprocess_exec(
        *("bash", "-euo", "pipefail", "-c", script.replace(DEFAULT_ADDRESS, address)),
        env={"PATH": f"{sysconfig.get_path('scripts')}:/usr/local/bin:/usr/bin:/bin", **env},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await asyncio.wait_for(running.communicate(), 4 * PATIENCE)
    assert running.returncode == 0, output.decode()
    return output.decode()


async def test_commands_for_the_shell_work(tmp_path: Path) -> None:
    scripts = scripts_of(DOCS / "other-languages.md")[:3]  # tests/peers runs the one after them
    async with weather_service(tmp_path) as env:
        env["HOME"] = str(tmp_path)
        first, again, buf = [await shell(script, env) for script in scripts]
    assert "polos.v1.RunService\n" in first
    assert [one["sequence"] for one in events(first)] == [str(n) for n in range(1, 13)]
    assert events(again) == events(first)[2:]
    said = [one["textDelta"]["content"] for one in events(buf) if "textDelta" in one]
    assert said == ANSWER


def scripts_of(page: Path) -> list[str]:
    """Return the scripts of a page that are tested."""
    return [block.code for block in blocks_of(page, "sh") if block.tested]


async def test_a_run_started_at_one_process_is_read_at_another(tmp_path: Path) -> None:
    serve, then = scripts_of(DOCS / "operations.md")
    serve = serve.replace("nats-server ", f"nats-server -p {NATS_ADDRESS.rpartition(':')[2]} ")
    script = WHILE_BOTH_SERVE.format(
        serve=serve, one=DEFAULT_ADDRESS, other=SECOND_ADDRESS, then=then
    )
    for address in (NATS_ADDRESS, SECOND_ADDRESS):
        script = script.replace(address.rpartition(":")[2], str(free_port()))
    write_files(README, tmp_path)
    async with ObligingProvider() as provider:
        model = {"OPENAI_API_KEY": "test", "OPENAI_BASE_URL": provider.url}
        env = {**model, "HOME": str(tmp_path), "POLOS_ADDRESS": f"127.0.0.1:{free_port()}"}
        printed = await shell(f"cd {tmp_path}\n{script}", env)
    assert f"{then}```\n\n```text\n{printed}```\n" in (DOCS / "operations.md").read_text()


def events(printed: str) -> list[dict[str, Any]]:
    """Return the events in the responses that a tool has printed, as JSON one after the other."""
    found: list[dict[str, Any]] = []
    rest = printed[printed.index("{") :]
    while rest:
        response, end = json.JSONDecoder().raw_decode(rest)
        found += response.get("events", [])
        rest = rest[end:].lstrip()
    return found


async def test_page_is_sent_the_answer(tmp_path: Path) -> None:
    async with weather_service(tmp_path) as env, web_page(tmp_path, env) as url:
        assert "<form>" in await asyncio.to_thread(fetch, url)
        sent = await asyncio.to_thread(fetch, f"{url}/ask?q={quote('Tokyo?')}")
    messages = [json.loads(line.removeprefix("data: ")) for line in sent.split("\n\n") if line]
    assert [one["text"] for one in messages[:-1]] == ANSWER
    assert messages[-1] == {"ended": ""}


def fetch(url: str) -> str:
    """Return what is at an address."""
    with urlopen(url, timeout=PATIENCE) as response:
        return str(response.read().decode())


def test_first_agent_with_a_tool_takes_five_lines() -> None:
    agent = next(block for block in blocks_of(README, "python") if block.file == "weather.py")
    assert len([line for line in agent.code.splitlines() if line and line[0] != "#"]) == 5


def test_recording_is_a_small_picture_of_the_kill() -> None:
    picture = (DOCS / "demo.svg").read_text()
    assert len(picture) < 300_000
    shown = "".join(ET.fromstring(picture).itertext())
    assert "kill -9: the service is gone" in shown
    assert "events arrived once and in order" in shown
