"""`polos new`: the project that it makes passes its own tests and is served."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from polos_service.cli.app import app
from polos_service.cli.new import FILES
from tests.cli.commands import Cli
from tests.support.process import ServiceProcess, environment


async def test_a_new_project_passes_its_tests_and_is_served(tmp_path: Path) -> None:
    project = tmp_path / "my.calendar"
    ended = await Cli("127.0.0.1:1")("new", str(project))
    assert (ended.code, ended.err) == (0, "")
    install = "pip install -r requirements.txt"
    following = f"Next: cd {project} && {install} && pytest && polos serve app.py"
    assert ended.out.splitlines()[-1] == following
    tested = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"],
        cwd=project,
        check=False,
        capture_output=True,
        text=True,
        env=environment(),
    )
    assert "2 passed" in tested.stdout, tested.stdout
    async with ServiceProcess(project / "app.py", tmp_path / "runs.db") as service:
        shown = await Cli(service.address)("agents", "list")
        assert shown.out.split("\t")[:4] == ["my.calendar", "openai", "gpt-4o-mini", "count_days"]
    assert "polos run my.calendar" in (project / "README.md").read_text()
    assert {one.name for one in project.iterdir()} - {"__pycache__"} == set(FILES)


def test_provider_and_model_are_chosen(tmp_path: Path) -> None:
    options = ["--provider", "anthropic", "--model", "claude"]
    assert CliRunner().invoke(app, ["new", str(tmp_path / "mine"), *options]).exit_code == 0
    text = (tmp_path / "mine" / "app.py").read_text()
    assert '    provider="anthropic",\n    model="claude",\n' in text


@pytest.mark.parametrize(
    ("provider", "told"),
    [("opnai", "did you mean 'openai'?"), ("anthropic", "name a model of 'anthropic'")],
)
def test_a_provider_that_nobody_knows_or_a_missing_model_is_refused(
    tmp_path: Path, provider: str, told: str
) -> None:
    options = ["new", str(tmp_path / "mine"), "--provider", provider]
    result = CliRunner().invoke(app, options, env={"COLUMNS": "500"})
    assert result.exit_code == 2
    assert told in result.output
    assert not (tmp_path / "mine").exists()


@pytest.mark.parametrize(("name", "code", "why"), [("full", 1, "is not empty"), ("a b", 2, "a b")])
def test_what_cannot_be_a_project_is_left_alone(
    tmp_path: Path, name: str, code: int, why: str
) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("mine")
    result = CliRunner().invoke(app, ["new", str(tmp_path / name)])
    assert result.exit_code == code
    assert why in result.output
    assert [one.name for one in (tmp_path / "full").iterdir()] == ["mine.txt"]
