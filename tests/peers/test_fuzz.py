"""Fuzz: everything that may come through the port, for minutes, without and with credentials."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.support.program import ROOT


@pytest.mark.timeout(900)
@pytest.mark.parametrize("options", [("--seconds", "120"), ("--seconds", "60", "--credentials")])
def test_a_service_takes_anything_for_minutes(options: tuple[str, ...]) -> None:
    command = [sys.executable, "-m", "fuzz", *options]
    assert subprocess.run(command, check=False, cwd=ROOT).returncode == 0
