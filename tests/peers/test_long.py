"""Long streams: the service is killed in the middle of 100,000 tokens, on a file and on NATS."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.e2e.long_stream import replayed_and_recovered
from tests.support.mock_provider import MockProvider
from tests.support.nats import NatsServer


@pytest.mark.timeout(600)
async def test_a_long_stream_on_a_file(tmp_path: Path, provider: MockProvider) -> None:
    await replayed_and_recovered(tmp_path, provider, None, "token", 100_000)


@pytest.mark.timeout(600)
async def test_a_long_stream_on_nats(tmp_path: Path, provider: MockProvider) -> None:
    with NatsServer(tmp_path) as server:
        await replayed_and_recovered(
            tmp_path, provider, server.url, "\u6771\u4eac\u30bf\u30ef\u30fc", 5_000
        )
