"""Short names: `last` and the beginning of an id, `-h`, and what other servers call `--listen`."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest
from typer.testing import CliRunner

import polos
from polos_client.errors import PolosError
from polos_service.cli.app import app
from polos_service.cli.naming import run_named
from tests.cli.commands import Cli
from tests.support.service import scripted, serving


async def test_a_run_is_named_by_last_by_the_beginning_of_its_id_or_by_its_id(
    tmp_path: Path,
) -> None:
    agent = scripted("fine", id="fine")
    async with serving(tmp_path, agent) as served:
        client = served.client
        with pytest.raises(PolosError, match="there is no run yet"):
            await run_named(client, "last")
        first = await served.start(agent)
        second = await served.start(agent)
        until = next(at for at in range(36) if first[at] != second[at])
        for name, named in {
            "last": second,
            "last:child-1": f"{second}:child-1",
            first[: until + 1]: first,
            second[:-1]: second,
            first: first,
            "nobody": "nobody",
            "abc": "abc",
            "f" * 20: "f" * 20,
        }.items():
            assert await run_named(client, name) == named
        for beginning in (first[:until], first[:1]):
            with pytest.raises(PolosError, match=f"begin with '{beginning}', for example"):
                await run_named(client, beginning)


async def test_commands_take_short_names(cli: Cli) -> None:
    await cli("run", "sums", "1 + 2?")
    (run_id,) = await cli.run_ids()
    for name in ("last", run_id[:30]):
        assert (await cli("runs", "show", name, "--json")).objects[0]["run_id"] == run_id
    assert "The sum is 3." in (await cli("runs", "tail", "last")).out
    assert run_id in (await cli("runs", "export", "last")).out
    ended = await cli("runs", "cancel", "last", "nobody", run_id[:-2])
    assert ended.out.splitlines() == [f"{run_id} had already ended: completed"] * 2
    assert ended.err == "Error: There is no run 'nobody'.\n"
    ended = await cli("runs", "resume", "last", "--data", "1")
    assert ended.err.startswith(f"Error: {run_id} has no open wait that can be answered; ")


async def test_the_shell_completes_runs_agents_and_workflows(cli: Cli) -> None:
    await cli("run", "sums", "1 + 2?")
    (run_id,) = await cli.run_ids()
    for words, found in {
        ("runs", "show", run_id[:3]): run_id,
        ("runs", "cancel", run_id, ""): run_id,
        ("chat", "su"): "sums",
        ("run", "su"): "sums",
    }.items():
        ended = await cli.completed(*words)
        assert found in ended.out.split(), words


@pytest.mark.parametrize("command", [[], ["run"], ["serve"], ["runs"], ["runs", "list"]])
def test_h_is_help(command: list[str]) -> None:
    result = CliRunner().invoke(app, [*command, "-h"])
    assert result.exit_code == 0
    assert "Usage:" in result.output


@pytest.mark.parametrize(
    ("command", "value", "place"),
    [
        (["serve", "app.py", "--port"], "8080", "127.0.0.1:8080"),
        (["serve", "app.py", "--host"], "0.0.0.0", "HOST:PORT"),
        (["runs", "list", "--port"], "h:1", "h:1"),
    ],
)
def test_a_port_is_pointed_to_the_address(command: list[str], value: str, place: str) -> None:
    result = CliRunner().invoke(app, [*command, value])
    assert result.exit_code == 2
    said = " ".join(result.output.replace("│", " ").split())
    assert f"pass --listen {place} to `polos serve`, and --address {place} to the other" in said


def test_the_package_has_its_version_and_is_the_command() -> None:
    assert polos.__version__ == version("polos-grpc")
    done = subprocess.run(
        [sys.executable, "-m", "polos", "--version"], check=True, capture_output=True, text=True
    )
    assert done.stdout == f"polos {polos.__version__}\n"
