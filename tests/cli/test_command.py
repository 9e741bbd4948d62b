"""The command as a whole: what it says of itself, its exit codes, and what it loads."""

from __future__ import annotations

import re
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

from polos_service.cli.exits import EXIT_CODES
from tests.cli.commands import Cli, Ended
from tests.support.process import environment

NOBODY = Cli("127.0.0.1:1")
PAGE = Path(__file__).parents[2] / "docs" / "cli.md"

LOADED = """
import sys
from polos_service.cli import main
try:
    main()
except SystemExit:
    pass
print(*sorted(sys.modules), sep="\\n", file=sys.stderr)
"""
"""Runs the command, and then says on standard error which modules are loaded."""


def loaded(*arguments: str) -> set[str]:
    """Return the modules that the command with these arguments has loaded when it ends."""
    result = subprocess.run(
        [sys.executable, "-c", LOADED, *arguments],
        check=True,
        capture_output=True,
        text=True,
        env=environment(POLOS_ADDRESS="127.0.0.1:1"),
    )
    return set(result.stderr.splitlines())


async def test_version_is_that_of_the_package() -> None:
    assert await NOBODY("--version") == Ended(0, f"polos {version('polos-grpc')}\n", "")


async def test_help_names_every_exit_code_and_every_command() -> None:
    said = " ".join((await NOBODY("--help")).out.split())
    for code, meaning in EXIT_CODES.items():
        assert f"{code} {meaning}" in said
    for command in ("serve", "run", "chat", "runs", "waits", "agents", "health", "demo"):
        assert f"│ {command} " in said


def test_the_page_has_the_exit_codes_of_the_code() -> None:
    table = re.findall(r"^\| (\d+) \| (.+) \|$", PAGE.read_text(), re.MULTILINE)
    assert [(int(code), meaning) for code, meaning in table] == list(EXIT_CODES.items())


def test_the_page_has_every_command() -> None:
    page = PAGE.read_text()
    commands = ("serve", "run", "chat", "waits", "agents list", "agents show", "health", "demo")
    for command in commands:
        assert f"polos {command}" in page
    for command in ("list", "show", "tail", "resume", "approve", "reject", "cancel", "delete"):
        assert f"polos runs {command}" in page


@pytest.mark.parametrize("arguments", [["run", "sums", "Go."], ["runs", "list"], ["health"]])
def test_a_caller_loads_nothing_of_the_service(arguments: list[str]) -> None:
    modules = loaded(*arguments)
    assert "polos_client.calls.client" in modules
    assert not modules & {"openai", "sqlite3", "uvloop", "structlog", "watchfiles"}
    ours = {name for name in modules if name.startswith("polos_service.")}
    assert {name.split(".")[1] for name in ours} == {"cli"}


def test_help_loads_neither_grpc_nor_protobuf() -> None:
    assert not loaded("run", "--help") & {"grpc", "google.protobuf"}


@pytest.mark.parametrize(
    "arguments",
    [
        ["nothing"],
        ["run"],
        ["run", "sums", "Go.", "--timeout", "soon"],
        ["runs", "list", "--limit", "0"],
        ["runs", "list", "--state", "fine"],
        ["runs", "cancel"],
        ["runs", "resume", "some-run"],
        ["runs", "resume", "some-run", "--data", "{"],
        ["runs", "approve", "some-run", "--wait-id", "0"],
        ["waits", "--limit", "0"],
    ],
)
async def test_a_wrong_command_line_has_its_code_and_no_traceback(arguments: list[str]) -> None:
    ended = await NOBODY(*arguments)
    assert (ended.code, ended.out) == (2, "")
    assert "Traceback" not in ended.err
