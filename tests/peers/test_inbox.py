"""Inboxes: one on NATS is filled with as many commands as it may hold."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from polos_service.store import INBOX_LIMIT, RunStore
from polos_service.store.nats import NatsStore
from tests.store import test_contract_inbox as contract
from tests.support.nats import NatsServer


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[RunStore]:
    with NatsServer(tmp_path) as server:
        opened = await NatsStore.open(server.address())
        yield opened
        await opened.close()


async def test_a_full_inbox_takes_nothing_but_a_cancel(store: RunStore) -> None:
    await contract.test_a_full_inbox_takes_nothing_but_a_cancel(store, INBOX_LIMIT)


async def test_a_cancel_takes_no_room(store: RunStore) -> None:
    await contract.test_a_cancel_takes_no_room(store, INBOX_LIMIT)
