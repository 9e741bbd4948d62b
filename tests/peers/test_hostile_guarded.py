"""Hostile callers, once more, at services that ask for credentials."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.support.program import ROOT


@pytest.mark.timeout(900)
def test_what_holds_without_credentials_holds_with_them() -> None:
    command = [sys.executable, "-m", "pytest", "--quiet", "tests/hostile", "--credentials"]
    assert subprocess.run(command, check=False, cwd=ROOT).returncode == 0
