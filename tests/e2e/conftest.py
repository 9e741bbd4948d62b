"""The processes of these tests run what the wheel has, and not the source."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.wheel import Wheel


@pytest.fixture(autouse=True)
def installed(wheel: Wheel, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Let the processes of a test import the packages of the wheel; return their folder."""
    monkeypatch.setenv("PYTHONPATH", str(wheel.unpacked))
    return wheel.unpacked
