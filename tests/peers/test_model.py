"""A real model: `make demo`, whose service is killed in an answer, and `make model`."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import sys
from pathlib import Path
from urllib.request import urlopen

from tests.support.mock_answers import call, say
from tests.support.mock_provider import MockProvider

ROOT = Path(__file__).resolve().parents[2]


async def start(
    tmp_path: Path, *, program: str = "examples.demo", **environment: str
) -> asyncio.subprocess.Process:
    """Start a program, the demo by default, without this machine's key, in a process group."""
    inherited = {name: value for name, value in os.environ.items() if "OPENAI" not in name}
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", program),
        cwd=ROOT,
        env={**inherited, "TMPDIR": str(tmp_path), **environment},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        start_new_session=True,
    )


async def output(demo: asyncio.subprocess.Process) -> str:
    """Wait for the demo's end, and return what it still says."""
    text, _ = await asyncio.wait_for(demo.communicate(), 240)
    return text.decode()


def nothing_remains(demo: asyncio.subprocess.Process, tmp_path: Path) -> bool:
    """Tell whether every process of the demo is gone, and every file that it made."""
    try:
        os.killpg(demo.pid, 0)
    except ProcessLookupError:
        return list(tmp_path.iterdir()) == []
    return False


def fetch(url: str) -> str:
    """Return what is at an address."""
    with urlopen(url, timeout=60) as response:
        return str(response.read().decode())


async def test_demo_survives_the_kill_and_ends_on_a_whole_answer(tmp_path: Path) -> None:
    demo = await start(tmp_path)
    text = await output(demo)
    assert demo.returncode == 0, text
    (name,) = re.findall(r"✓ choose a name: (\w+) ", text)
    killed = text.index("✗ kill -9: the service is gone, after event ")
    assert killed < text.index("✓ started again on the same store") < text.index("↻ llm:1 starts")
    answer = re.search(r"its text is void\n(.+)\n✓ llm:1 \([\d.]+ s\)\n", text, re.DOTALL)
    assert answer is not None, text
    assert name in answer[1]
    assert len(answer[1].split()) > 20, text
    assert answer[1].rstrip('"')[-1] in ".!?", text
    assert re.search(r"All \d+ events arrived once and in order", text), text
    assert re.search(r"^  make model +\w", text, re.MULTILINE), text
    assert nothing_remains(demo, tmp_path)


async def test_make_model_says_how_a_service_reaches_the_model(tmp_path: Path) -> None:
    model = await start(tmp_path, program="examples.small_model")
    assert model.stdout is not None
    line = await asyncio.wait_for(model.stdout.readuntil(b"-needed\n"), 60)
    settings = dict(one.split("=") for one in line.decode().split("export ")[1].split())
    served = await asyncio.to_thread(fetch, f"{settings['OPENAI_BASE_URL']}/models")
    assert '"object"' in served
    os.killpg(model.pid, signal.SIGINT)
    await output(model)
    assert model.returncode == 0


async def test_demo_with_a_key_uses_that_provider_and_a_tool(tmp_path: Path) -> None:
    async with MockProvider() as provider:
        provider.reply(call("get_weather", {"city": "Tokyo"}))
        provider.reply(say("Tokyo is ", "warmer."))
        demo = await start(tmp_path, OPENAI_API_KEY="test", OPENAI_BASE_URL=provider.url)
        text = await output(demo)
    assert demo.returncode == 0, text
    assert [request.body["model"] for request in provider.requests] == ["gpt-4o-mini"] * 2
    assert re.search(r'get_weather\(\{"city": ?"Tokyo"\}\)', text), text
    assert "✓ get_weather: {'city': 'Tokyo'" in text, text
    assert "Tokyo is warmer." in text, text
    assert "kill" not in text, text  # so short an answer ends before
    assert nothing_remains(demo, tmp_path)


async def test_interrupted_demo_takes_everything_down(tmp_path: Path) -> None:
    demo = await start(tmp_path)
    assert demo.stdout is not None
    await asyncio.wait_for(demo.stdout.readuntil("▸ llm:1\n".encode()), 60)
    os.killpg(demo.pid, signal.SIGINT)  # as a terminal does
    text = await output(demo)
    assert demo.returncode == 130, text
    assert text.endswith("Stopped.\n")
    assert nothing_remains(demo, tmp_path)
