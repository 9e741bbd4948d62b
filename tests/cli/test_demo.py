"""`polos demo`: the promise, kept on the newcomer's own machine."""

from __future__ import annotations

import re

from polos_service.cli import demo
from tests.cli.commands import Cli

NOBODY = Cli("127.0.0.1:1")
"""The demo brings its own service: it must not look for another one."""


async def test_the_demo_shows_tool_retry_drop_and_resumption() -> None:
    ended = await NOBODY("demo")
    assert (ended.code, ended.err) == (0, "")
    lines = ended.out.splitlines()
    assert '→ look({"lighthouse": "Northern Head"})' in lines
    assert any(line.startswith("↻ llm:2 starts over: ") for line in lines)
    dropped, back = re.findall(r"-- .* event (\d+)", ended.out)
    assert dropped == back
    assert lines.count(demo.ANSWER) == 1
    (count,) = re.findall(r"All (\d+) events arrived once", ended.out)
    assert int(count) > int(dropped)


async def test_the_demo_draws_the_answer_as_it_comes_on_a_terminal() -> None:
    async with NOBODY.terminal("demo") as terminal:
        await terminal.shows("Yes, the lamp is lit")
        assert "All " not in terminal.text
        assert await terminal.ended() == 0
        await terminal.shows("events arrived once and in order, over two streams")


async def test_ctrl_c_ends_the_demo_at_once() -> None:
    async with NOBODY.terminal("demo") as terminal:
        await terminal.shows("look(")  # early: on a busy machine the rest is soon over
        terminal.type("\x03")
        assert await terminal.ended() == 130
    assert "Traceback" not in terminal.text
