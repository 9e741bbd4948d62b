"""`polos chat`: a conversation that the terminal remembers."""

from __future__ import annotations

import re
from pathlib import Path

from tests.cli.commands import Cli, Ended, Terminal
from tests.support.process import until


def tokens(terminal: Terminal) -> list[int]:
    """Return the tokens that each answer has read: a script counts the conversation's words."""
    return [int(found) for found in re.findall(r"done · .*? (\d+) tokens in", terminal.text)]


async def answered(terminal: Terminal, line: str, answers: int) -> None:
    """Say something, and wait for the answer of that number and the prompt after it."""
    terminal.type(f"{line}\n")
    await terminal.shows("done ·", times=answers)
    await until(lambda: terminal.text.rstrip().endswith("\n>"), "the prompt")


async def test_each_question_comes_with_the_whole_conversation_until_a_new_one(cli: Cli) -> None:
    async with cli.terminal("chat", "slow", "--session", "talk") as terminal:
        await answered(terminal, "three words here", 1)
        await answered(terminal, "two more", 2)
        terminal.type("/new\n")
        await answered(terminal, "again", 3)
        terminal.type("/quit\n")
        assert await terminal.ended() == 0
    # The answer has two words.
    assert tokens(terminal) == [3, 3 + 2 + 2, 1]
    assert len(await cli.run_ids("--session", "talk")) == 3


async def test_ctrl_c_cancels_the_answer_and_keeps_the_conversation(
    cli: Cli, tmp_path: Path
) -> None:
    gate = tmp_path / "open"
    gate.touch()
    async with cli.terminal("chat", "gated") as terminal:
        await answered(terminal, "three words here", 1)
        gate.unlink()
        terminal.type("never mind this\n")
        await terminal.shows("→ gate({})", times=2)
        terminal.type("\x03")
        await terminal.shows("was cancelled")
        gate.touch()
        await answered(terminal, "two more", 2)
        terminal.type("\x04")
        assert await terminal.ended() == 0
    # Both model calls of an answer read the conversation, and the second one the tool's word.
    assert tokens(terminal) == [3 + 3 + 1, 7 + 7 + 1]
    assert len(await cli.run_ids("--state", "cancelled")) == 1


async def test_ctrl_c_at_the_prompt_says_how_to_end(cli: Cli) -> None:
    async with cli.terminal("chat", "slow") as terminal:
        await terminal.shows("> ")
        terminal.type("\x03")
        terminal.type("\x03")  # the first may come before input() looks for it
        await terminal.shows("/quit or Ctrl-D quits", times=2)
        terminal.type("\x04")
        assert await terminal.ended() == 0


async def test_a_pipe_gets_the_answers_alone(cli: Cli) -> None:
    ended = await cli("chat", "steers", input=b"Hello\n\nAgain\n")
    assert ended == Ended(0, "red \x1b[31m bell \x07 end\n" * 2, "")


async def test_a_failed_answer_and_a_wrong_command_do_not_end_the_conversation(cli: Cli) -> None:
    ended = await cli("chat", "fails", input=b"Hello\n/what\nAgain\n")
    assert (ended.code, ended.out) == (0, "")
    assert ended.err.startswith("Error: no such key\nError: unknown command /what; ")
    assert ended.err.endswith("Error: no such key\n")


async def test_an_unknown_agent_is_refused_before_anything_is_asked(cli: Cli) -> None:
    ended = await cli("chat", "nobody", input=b"Hello\n")
    assert (ended.code, ended.out) == (1, "")
    assert ended.err.startswith("Error: There is no agent or workflow 'nobody'. Loaded: ")
