"""The documented API under type checkers, as a user's project has them: strict, and installed.

Both check the `usage_*.py` files, which also say what must be refused: an ignore that nothing
needs is an error there.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
NAMES = sorted(path.name for path in HERE.glob("usage_*.py"))
CACHE = HERE.parents[1] / ".mypy_cache" / "usage"


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """Copy the files away from this project: only what is installed can be imported there."""
    for name in NAMES:
        shutil.copy(HERE / name, tmp_path)
    return tmp_path


def check(project: Path, *command: str) -> str:
    """Run a type checker, which must find nothing; return what it printed."""
    done = subprocess.run(
        [sys.executable, "-m", *command],
        cwd=project,
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_mypy_strict_accepts_the_documented_usage(project: Path) -> None:
    text = check(project, "mypy", "--strict", "--config-file=", f"--cache-dir={CACHE}", *NAMES)
    assert f"no issues found in {len(NAMES)} source files" in text


def test_pyright_strict_accepts_the_documented_usage(project: Path) -> None:
    config = {
        "include": NAMES,
        "typeCheckingMode": "strict",
        "enableTypeIgnoreComments": False,  # those are mypy's
        "reportUnnecessaryTypeIgnoreComment": "error",
    }
    (project / "pyrightconfig.json").write_text(json.dumps(config))
    command = ("pyright", "--pythonpath", sys.executable, "--project", str(project))
    assert "0 errors, 0 warnings" in check(project, *command)
