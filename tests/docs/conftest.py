from __future__ import annotations

import pytest

from polos_service import server


@pytest.fixture(autouse=True)
def _no_warnings_of_a_busy_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep the watchdog silent: what it prints would stand in the output of a page's block."""
    monkeypatch.setattr(server, "BLOCKED_LIMIT", 3600.0)
