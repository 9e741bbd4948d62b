"""Envoy: connections are sent away, calls are repeated, and replicas go while streams run."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc.aio
import pytest

from polos import PolosClient
from polos.v1 import run_service_pb2 as pb
from polos.v1.run_service_pb2_grpc import RunServiceStub
from polos_service.api.grpc.run_service import RunService
from tests.support.nats import NatsServer
from tests.support.process import PATIENCE, ServiceProcess
from tests.support.proxies import APP, Envoy, agent, started, whole
from tests.support.service import scripted, serving, until

MANY = 20
"""Streams beside each other."""

ROUNDS = 5
"""How often connections are sent away."""


@pytest.fixture
def app(tmp_path: Path) -> Path:
    """Return the file of the agents."""
    path = tmp_path / "app.py"
    path.write_text(APP)
    return path


async def streams_and_starts(client: PolosClient, times: int) -> None:
    """Read streams while short runs are started; all must be whole, and none is started twice."""
    reciter, talker = agent("reciter"), agent("talker")
    streams = await asyncio.gather(*(reciter.stream(client, "Hi") for _ in range(MANY)))
    reading = [asyncio.create_task(whole(stream)) for stream in streams]
    for _ in range(times):
        assert await whole(await talker.stream(client, "Hi")) == "Hello world"
        await asyncio.sleep(0.05)
    assert len(set(await asyncio.gather(*reading))) == 1
    assert len(await started(client)) == MANY + times


async def test_connections_that_envoy_sends_away_lose_nothing(app: Path, tmp_path: Path) -> None:
    """No stream is even interrupted: calls that begin go to a new connection."""
    young = {
        "max_connection_duration: 3600s": "max_connection_duration: 0.5s",
        "drain_timeout: 30s": "drain_timeout: 0.1s",
    }
    async with (
        ServiceProcess(app, tmp_path / "runs.db") as service,
        Envoy(tmp_path / "envoy", [service.port], young) as envoy,
        envoy.client() as client,
    ):
        await streams_and_starts(client, 50)
        assert await envoy.stat("http.polos.downstream_cx_max_duration_reached") >= ROUNDS
        print(
            await envoy.stats(
                "http.polos.downstream_(rq_total|cx_total|cx_max.*|rq_rx_reset|cx_drain_close)$"
            )
        )


async def test_connections_that_the_service_sends_away_lose_nothing(
    app: Path, tmp_path: Path
) -> None:
    young = {"POLOS_MAX_CONNECTION_AGE": "1", "POLOS_MAX_CONNECTION_AGE_GRACE": "1"}
    async with (
        ServiceProcess(app, tmp_path / "runs.db", **young) as service,
        Envoy(tmp_path / "envoy", [service.port]) as envoy,
        envoy.client() as client,
    ):
        await streams_and_starts(client, 50)
        print(
            await envoy.stats(
                "(http|cluster).polos.(down|up)stream_(rq_total|cx_total|cx_max.*|rq_rx_reset|cx_drain_close|cx_close_notify|cx_destroy_with_active_rq|cx_destroy.*)$"
            )
        )
        assert await envoy.stat("cluster.polos.upstream_cx_close_notify") >= ROUNDS
