"""`polos run` and `polos runs tail` on a terminal: the live view, and what Ctrl-C does."""

from __future__ import annotations

import re

from tests.cli.commands import Cli, Terminal

QUESTION = "Ctrl-C: [d]etach (the run continues), [c]ancel the run, or [g]o on? "


async def test_a_run_is_shown_with_steps_tools_text_tokens_and_time(cli: Cli) -> None:
    async with cli.terminal("run", "sums", "1 + 2?") as terminal:
        assert await terminal.ended() == 0
        await terminal.shows("done ·")
    (run_id,) = await cli.run_ids()
    for shown in (
        "sums · scripted · script\n",
        "Let me add.\n",
        '→ add({"a": 1, "b": 2})\n',
        '→ broken({"why": "no luck"})\n',
        "The sum is 3.\n",
    ):
        assert terminal.text.count(shown) == 1, shown
    assert re.search(r"✓ llm:1 · \d\.\d\d s · 3 tokens in, 3 out\n", terminal.text)
    assert re.search(r"✓ add · \d\.\d\d s · 3\n", terminal.text)
    assert re.search(
        r"✗ broken · \d\.\d\d s · The tool broken raised ValueError: no luck\n", terminal.text
    )
    end = rf"done · 2 model calls · \d+ tokens in, 7 out · \d\.\d\d s · run {run_id}\n"
    assert re.search(end, terminal.text)


async def test_what_a_retry_takes_back_leaves_the_screen_but_for_a_note(cli: Cli) -> None:
    async with cli.terminal("run", "retries", "Go.") as terminal:
        assert await terminal.ended() == 0
        await terminal.shows("done ·")
    before, _, after = terminal.text.partition("↻ llm:1 starts over: ")
    note, _, rest = after.partition("\n")
    assert "void words" in before
    assert note.endswith("; discarded: void words")
    assert "void words" not in rest
    assert "These count.\n" in rest


async def test_text_is_shown_while_the_model_speaks(cli: Cli) -> None:
    async with cli.terminal("run", "waits", "Go.") as terminal:
        await terminal.shows("So far")
        assert await cli.run_ids("--state", "running")


async def test_a_failed_run_is_shown_with_what_there_was(cli: Cli) -> None:
    async with cli.terminal("run", "fails", "Go.") as terminal:
        assert await terminal.ended() == 3
        await terminal.shows("ended ·")
    assert "Half an …\n" in terminal.text
    assert "✗ no such key\n" in terminal.text


async def test_a_model_cannot_steer_the_terminal(cli: Cli) -> None:
    async with cli.terminal("run", "steers", "Go.") as terminal:
        assert await terminal.ended() == 0
        await terminal.shows("done ·")
    assert b"\x07" not in terminal.raw
    assert b"red [31m bell  end" in terminal.raw


async def interrupted(terminal: Terminal) -> None:
    """Press Ctrl-C once the run says something, and wait for the question."""
    await terminal.shows("So far")
    terminal.type("\x03")
    await terminal.shows(QUESTION)


async def test_ctrl_c_asks_and_d_detaches(cli: Cli) -> None:
    async with cli.terminal("run", "waits", "Go.") as terminal:
        await interrupted(terminal)
        terminal.type("d\n")
        assert await terminal.ended() == 130
        (run_id,) = await cli.run_ids("--state", "running")
        await terminal.shows(f"Read on with: polos runs tail {run_id}\n")
    assert "So far …\n" in terminal.text


async def test_ctrl_c_asks_and_c_cancels(cli: Cli) -> None:
    async with cli.terminal("run", "waits", "Go.") as terminal:
        await interrupted(terminal)
        terminal.type("c\n")
        assert await terminal.ended() == 4
        await terminal.shows("was cancelled")
    assert await cli.run_ids("--state", "cancelled")


async def test_ctrl_c_asks_until_it_is_answered_and_g_goes_on(cli: Cli) -> None:
    async with cli.terminal("run", "waits", "Go.") as terminal:
        await interrupted(terminal)
        terminal.type("what?\n")
        await terminal.shows(QUESTION, times=2)
        seen = terminal.text.count("So far")
        terminal.type("g\n")
        await terminal.shows("So far", times=seen + 1)
        assert await cli.run_ids("--state", "running")


async def test_ctrl_c_twice_detaches(cli: Cli) -> None:
    async with cli.terminal("run", "waits", "Go.") as terminal:
        await interrupted(terminal)
        terminal.type("\x03")
        assert await terminal.ended() == 130
    assert await cli.run_ids("--state", "running")


async def test_ctrl_d_at_the_question_detaches(cli: Cli) -> None:
    async with cli.terminal("run", "waits", "Go.") as terminal:
        await interrupted(terminal)
        terminal.type("\x04")
        assert await terminal.ended() == 130
    assert await cli.run_ids("--state", "running")


async def test_what_was_typed_before_the_question_is_no_answer(cli: Cli) -> None:
    async with cli.terminal("run", "waits", "Go.") as terminal:
        await terminal.shows("So far")
        terminal.type("c\n")
        await interrupted(terminal)
        terminal.type("d\n")
        assert await terminal.ended() == 130
    assert await cli.run_ids("--state", "running")


async def test_ctrl_c_at_a_tail_ends_the_reading_alone(cli: Cli) -> None:
    async with cli.terminal("run", "waits", "Go.") as terminal:
        await interrupted(terminal)
        terminal.type("d\n")
        await terminal.ended()
    (run_id,) = await cli.run_ids()
    async with cli.terminal("runs", "tail", run_id) as terminal:
        await terminal.shows("So far")
        terminal.type("\x03")
        assert await terminal.ended() == 130
    assert QUESTION not in terminal.text
    assert await cli.state(run_id) == "running"


async def test_a_missing_prompt_is_a_wrong_command_line(cli: Cli) -> None:
    async with cli.terminal("run", "sums") as terminal:
        assert await terminal.ended() == 2
        await terminal.shows("there is no prompt: pass one, or pipe one in")
