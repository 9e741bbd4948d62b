from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from polos_service.loader import load
from tests.cli.commands import Cli, write_app
from tests.cli.flows import Flows, flows_in
from tests.support.process import ServiceProcess
from tests.support.service import serving


@pytest.fixture
async def cli(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Cli]:
    """Give the command, and a service in this process: to start one of its own takes seconds."""
    monkeypatch.setattr(sys, "path", [*sys.path])
    async with serving(tmp_path, *load(str(write_app(tmp_path)))) as served:
        yield Cli(served.client.address)


@pytest.fixture
async def service(tmp_path: Path) -> AsyncIterator[ServiceProcess]:
    """Give a service in a process, which a test may stop and start."""
    async with ServiceProcess(write_app(tmp_path), tmp_path / "runs.db") as process:
        yield process


@pytest.fixture
async def flows(tmp_path: Path) -> AsyncIterator[Flows]:
    """Give a service in this process that has workflows, and the command."""
    async with flows_in(tmp_path) as flows:
        yield flows
