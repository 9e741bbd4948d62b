from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.cli.commands import Cli, write_app
from tests.support.process import ServiceProcess


@pytest.fixture
async def service(tmp_path: Path) -> AsyncIterator[ServiceProcess]:
    async with ServiceProcess(write_app(tmp_path), tmp_path / "runs.db") as process:
        yield process


@pytest.fixture
def cli(service: ServiceProcess) -> Cli:
    return Cli(service.address)
