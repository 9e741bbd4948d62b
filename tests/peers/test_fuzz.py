"""Fuzz: everything that may come through the port, for two minutes, with a seed of its own."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.support.program import ROOT


@pytest.mark.timeout(900)
def test_a_service_takes_anything_for_minutes() -> None:
    command = [sys.executable, "-m", "fuzz", "--seconds", "120"]
    assert subprocess.run(command, check=False, cwd=ROOT).returncode == 0
