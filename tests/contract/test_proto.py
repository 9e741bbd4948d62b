"""The protocol is linted, formatted, and breaks no reader of what main has."""

from __future__ import annotations

import shutil
import subprocess
import sysconfig
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
BUF = Path(sysconfig.get_path("scripts")) / "buf"


def buf(*arguments: str | Path, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    """Run buf and return what it said, which is nothing when all is well."""
    return subprocess.run(
        [BUF, *arguments],
        check=False,
        cwd=cwd,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def git(*arguments: str) -> subprocess.CompletedProcess[bytes]:
    """Run git in this repository."""
    return subprocess.run(["git", *arguments], check=False, cwd=ROOT, capture_output=True)


def main_branch() -> str:
    """Return the first ref of the main branch that has a protocol."""
    for ref in ("origin/main", "main", "HEAD"):
        if git("cat-file", "-e", f"{ref}:proto").returncode == 0:
            return ref
    pytest.skip("no commit has a protocol yet")


def copy_of_protocol(folder: Path) -> Path:
    """Copy what buf needs into `folder`."""
    shutil.copytree(ROOT / "proto", folder / "proto")
    shutil.copy(ROOT / "buf.yaml", folder)
    return folder


def test_protocol_follows_the_style_rules() -> None:
    result = buf("lint")
    assert (result.returncode, result.stdout) == (0, "")


def test_protocol_is_formatted() -> None:
    result = buf("format", "--diff", "--exit-code")
    assert (result.returncode, result.stdout) == (0, "")


def test_protocol_breaks_no_reader_of_main(tmp_path: Path) -> None:
    archive = git("archive", main_branch(), "buf.yaml", "proto")
    subprocess.run(["tar", "-x", "-C", tmp_path], check=True, input=archive.stdout)
    result = buf("breaking", "--against", tmp_path)
    assert (result.returncode, result.stdout) == (0, "")


def test_breaking_change_is_found(tmp_path: Path) -> None:
    changed = copy_of_protocol(tmp_path)
    run = changed / "proto" / "polos" / "v1" / "run.proto"
    field = "RunState state = 3;"
    assert field in run.read_text()
    run.write_text(run.read_text().replace(field, "RunState state = 103;"))
    result = buf("breaking", "--against", ROOT, cwd=changed)
    assert result.returncode != 0
    assert 'field "3" with name "state" on message "Run" was deleted' in result.stdout
