"""A real model: `make demo`, its service, and everything taken down after it."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import sys
from pathlib import Path

from tests.support.mock_answers import call, say
from tests.support.mock_provider import MockProvider

ROOT = Path(__file__).resolve().parents[2]


async def start(tmp_path: Path, **environment: str) -> asyncio.subprocess.Process:
    """Start the demo, without this machine's key, in a process group of its own."""
    inherited = {name: value for name, value in os.environ.items() if "OPENAI" not in name}
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "examples.demo"),
        cwd=ROOT,
        env={**inherited, "TMPDIR": str(tmp_path), **environment},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        start_new_session=True,
    )


async def output(demo: asyncio.subprocess.Process) -> str:
    """Wait for the demo's end, and return what it still says."""
    text, _ = await asyncio.wait_for(demo.communicate(), 90)
    return text.decode()


def nothing_remains(demo: asyncio.subprocess.Process, tmp_path: Path) -> bool:
    """Tell whether every process of the demo is gone, and every file that it made."""
    try:
        os.killpg(demo.pid, 0)
    except ProcessLookupError:
        return list(tmp_path.iterdir()) == []
    return False


async def test_demo_streams_an_answer_and_reads_it_again(tmp_path: Path) -> None:
    demo = await start(tmp_path)
    text = await output(demo)
    assert demo.returncode == 0, text
    answer = re.search(r"▸ llm:1\n(.+)\n✓ llm:1 in [\d.]+ s\n", text, re.DOTALL)
    assert answer is not None, text
    assert len(answer[1].split()) > 10, text
    assert re.search(r"\n\d+ tokens, \d+ tokens/s, [\d.]+ s\n", text), text
    assert re.search(r"The same \d+ events, with the same text", text), text
    assert text.splitlines()[-1].startswith("Next: serve an agent of your own"), text
    assert nothing_remains(demo, tmp_path)


async def test_demo_with_a_key_uses_that_provider_and_a_tool(tmp_path: Path) -> None:
    async with MockProvider() as provider:
        provider.reply(call("get_weather", {"city": "Tokyo"}))
        provider.reply(say("Tokyo is ", "warmer."))
        demo = await start(tmp_path, OPENAI_API_KEY="test", OPENAI_BASE_URL=provider.url)
        text = await output(demo)
    assert demo.returncode == 0, text
    assert [request.body["model"] for request in provider.requests] == ["gpt-4o-mini"] * 2
    assert re.search(r'get_weather\(\{"city": ?"Tokyo"\}\)', text), text
    assert "✓ get_weather in " in text, text
    assert "Tokyo is warmer." in text, text
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
