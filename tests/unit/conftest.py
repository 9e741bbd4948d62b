from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from polos_service.store.sqlite import SqliteStore
from tests.support.runs import opened


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SqliteStore]:
    """Give a store of its own in a file."""
    async with opened(tmp_path) as store:
        yield store
