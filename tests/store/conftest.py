"""Every store passes the same contract: a further one joins by a factory here."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from polos_service.store import RunStore
from polos_service.store.sqlite import SqliteStore


async def sqlite(folder: Path) -> RunStore:
    return await SqliteStore.open(folder / "runs.db")


FACTORIES: dict[str, Callable[[Path], Awaitable[RunStore]]] = {"sqlite": sqlite}


@pytest.fixture(params=FACTORIES)
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[RunStore]:
    opened = await FACTORIES[request.param](tmp_path)
    yield opened
    await opened.close()
