"""Fixtures for pytest: `pytest_plugins = ["polos.testing.fixtures"]` in a `conftest.py`."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from polos.sync import SyncClient
from polos.testing import ScriptedPolos


@pytest.fixture
def polos() -> Iterator[ScriptedPolos]:
    """Return a service in this process whose models play scripts; each test gets its own.

    Async tests await calls with it. Others call it through `SyncClient(polos)`.
    """
    service = ScriptedPolos()
    with SyncClient(service):
        yield service
