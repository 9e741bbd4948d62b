"""Fixtures that several folders of tests use."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest

from polos_client.calls import connection as connection_module
from polos_service import logs
from tests.support.mock_provider import MockProvider
from tests.support.process import PATIENCE
from tests.support.wheel import Wheel, built

TESTS = Path(__file__).parent

THOROUGH = (
    "chaos",
    "cli",
    "e2e/test_anthropic.py",
    "e2e/test_cancel.py",
    "e2e/test_cli.py",
    "e2e/test_http_provider.py",
    "e2e/test_kill.py",
    "e2e/test_kill_approval.py",
    "e2e/test_kill_waits.py",
    "e2e/test_kill_workflow.py",
    "e2e/test_long.py",
    "e2e/test_responses_api.py",
    "e2e/test_signals.py",
    "e2e/test_transport.py",
    "e2e/test_workers.py",
    "examples",
    "failures",
    "hostile",
    "rpc/test_access_table.py",
    "store/test_contract_fairness.py",
    "store/test_damage.py",
    "store/test_long_answers.py",
    "store/test_long_results.py",
    "store/test_nats_crashes.py",
    "store/test_nats_foreign.py",
    "store/test_nats_foreign_buckets.py",
    "store/test_nats_lost.py",
    "store/test_nats_refusals.py",
    "unit/models/test_hostile.py",
)
"""Folders and files whose tests are marked `thorough`: they take more time than all others, and
`make test` leaves them to `make test-peers`."""


def pytest_collection_modifyitems(items: Sequence[pytest.Item]) -> None:
    """Mark the tests that take most of the time."""
    places = [TESTS / one for one in THOROUGH]
    for item in items:
        if any(item.path.is_relative_to(place) for place in places):
            item.add_marker(pytest.mark.thorough)


@pytest.fixture(autouse=True)
def logging() -> None:
    """Log to standard error: a test that captures logs would leave a log on standard output."""
    logs.log_to_stderr()


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Wheel:
    """Return the wheel of this source."""
    folder = tmp_path_factory.getbasetemp()
    return built(folder.parent if "PYTEST_XDIST_WORKER" in os.environ else folder)


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let clients wait for a service on a machine that is busy."""
    monkeypatch.setattr(connection_module, "PATIENCE", PATIENCE)


@pytest.fixture
async def provider() -> AsyncIterator[MockProvider]:
    """Give a model provider that answers what a test tells it to, over HTTP."""
    async with MockProvider() as provider:
        yield provider
