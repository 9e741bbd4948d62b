"""What runs were started with, as `polos runs` shows it: on any terminal, whatever it is."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest
from rich.cells import cell_len

from polos.v1.run_pb2 import Run, RunInput
from polos_service.cli.history import History
from polos_service.cli.records import as_dict, described, row_of
from polos_service.cli.table import flat
from tests.cli.commands import Cli, Terminal, write_app
from tests.cli.flows import Flows
from tests.support.process import ServiceProcess

STEERS = "\x1b[31mred\x1b]0;title\x07\x1b[2J\n\tTotal: \u202e100\u202c \u200f"

HOSTILE = STEERS + "日本語の長い文章 | x\u0301 "

CLEAN = "[31mred ]0;title [2J Total: 100 日本語の長い文章 | x\u0301"


async def seen(terminal: Terminal, columns: int) -> str:
    """Return what a command printed in full; no line of it is wider than the terminal."""
    assert await terminal.ended() == 0
    await terminal.shows("Total: 100")
    assert all(cell_len(line) <= columns for line in terminal.text.splitlines())
    assert b"\x1b]0" not in terminal.raw
    assert b"\x1b[2J" not in terminal.raw
    assert all(mark.encode() not in terminal.raw for mark in "\x07\u202e\u202c\u200f")
    return " ".join(terminal.text.split())


@pytest.mark.parametrize("columns", [60, 80, 200])
async def test_a_hostile_input_breaks_no_terminal(cli: Cli, columns: int) -> None:
    await cli("run", "sums", HOSTILE + "word " * 100)
    (run_id,) = await cli.run_ids()
    beginning = f"{CLEAN} word word word"
    async with cli.terminal("runs", "list", columns=columns) as terminal:
        listed = await seen(terminal, columns)
    assert (f"input {beginning[:30]}" if columns < 200 else beginning[:30]) in listed
    assert "word …" in listed or "w …" in listed or listed.endswith("…")
    lines = terminal.text.splitlines()
    if columns == 200:
        headings, row = lines
        assert headings.split()[-2:] == ["SESSION", "INPUT"]
        assert row.startswith(run_id)
    else:
        assert lines[0] == run_id
        assert all(line.startswith("  ") for line in lines[1:])
    async with cli.terminal("runs", "show", "last", columns=columns) as terminal:
        shown = await seen(terminal, columns)
    assert f"input preview {beginning}" in shown


async def test_programs_get_the_whole_input(cli: Cli) -> None:
    given = HOSTILE + "word " * 100
    await cli("run", "sums", given)
    (listed,) = (await cli("runs", "list", "--json")).objects
    assert listed["input_preview"].startswith(CLEAN)
    assert len(listed["input_preview"]) == 200
    assert "input" not in listed
    (shown,) = (await cli("runs", "show", "last", "--json")).objects
    assert (shown["input"], shown["input_preview"]) == (given, listed["input_preview"])
    piped = (await cli("runs", "list")).out
    assert piped.count("\n") == 1
    cells = piped.removesuffix("\n").split("\t")
    assert len(cells) == 7
    assert cells[6].startswith(CLEAN)


async def test_the_payload_of_a_workflow_is_shown(flows: Flows) -> None:
    await flows.start("order", '{"item": "tea", "n": [1, null]}')
    assert '{"item": "tea", "n": [1, null]}' in (await flows.cli("runs", "list")).out
    (shown,) = (await flows.cli("runs", "show", "last", "--json")).objects
    assert shown["input"] == {"item": "tea", "n": [1, None]}


async def test_a_service_that_hides_inputs_shows_none(tmp_path: Path) -> None:
    app, file = write_app(tmp_path), tmp_path / "runs.db"
    async with ServiceProcess(app, file, "--hide-inputs") as service:
        cli = Cli(service.address)
        await cli("run", "sums", "the confidential words")
        for command in ("list", "show last", "list --json", "show last --json"):
            ended = await cli("runs", *command.split())
            assert (ended.code, "confidential" in ended.out) == (0, False)
            assert ended.out


def test_what_a_hostile_service_sends_does_not_steer_the_terminal() -> None:
    run = Run(run_id="r", workflow_id="w", input=RunInput(preview="a\x1b[2J\n\u202eb" * 50))
    row = row_of(run, datetime.now(UTC))
    assert len(row[6]) <= 62
    assert all(flat(cell).isprintable() for cell in row)
    told = described(as_dict(run) | {"tool_results": []}, History())
    (line,) = [one for one in told.splitlines() if one.startswith("input preview")]
    assert line.isprintable()
    assert json.loads(json.dumps(as_dict(run)))["input_preview"] == run.input.preview
