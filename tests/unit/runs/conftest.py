from __future__ import annotations

import pytest

from polos_service.runs import drive, executor


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Cut short how long a run is waited for after its cancel, and a pause after a failure."""
    monkeypatch.setattr(drive, "CANCEL_PATIENCE", 0.1)
    monkeypatch.setattr(executor, "RETRY_PAUSE", 0.001)
