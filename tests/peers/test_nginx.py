"""nginx: it is reloaded, sends connections away and buffers while streams run."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator, Callable
from functools import partial
from pathlib import Path

import pytest

from tests.support.proxies import (
    RECITED,
    Authority,
    Nginx,
    SecureService,
    agent,
    recited,
    started,
    whole,
)

MANY = 20
"""Streams beside each other."""

SOME = 30
"""Runs that are started meanwhile, one by one."""

LOG = {
    "access_log /var/log/nginx/access.log": "log_format calls '$connection $uri';"
    "access_log /var/log/nginx/access.log calls"
}
"""What has the log name connection and method of each call."""


@pytest.fixture
async def proxied(tmp_path: Path) -> AsyncIterator[Callable[..., Nginx]]:
    """Give what makes an nginx in front of a service."""
    authority = Authority()
    async with SecureService(tmp_path / "service", authority) as service:
        yield partial(Nginx, tmp_path / "nginx", authority, [service.port])


async def test_a_reload_ends_streams_after_a_while_and_loses_nothing(
    proxied: Callable[..., Nginx],
) -> None:
    """Each reload replaces the workers; what their streams lack is read through the new ones."""
    soon = {"worker_shutdown_timeout 30s": "worker_shutdown_timeout 1s"}
    async with proxied(soon) as nginx, nginx.client() as client:
        reading = await recited(client, MANY)
        for number in range(SOME):
            if number % 10 == 0:
                nginx.send(signal.SIGHUP)
            assert await whole(await agent("talker").stream(client, "Hi")) == "Hello world"
            await asyncio.sleep(0.1)
        assert set(await asyncio.gather(*reading)) == {RECITED}
        assert len(await started(client)) == MANY + SOME
        assert any("/StreamWorkflow" in call for call in nginx.calls())


async def test_connections_with_many_calls_are_sent_away_and_lose_nothing(
    proxied: Callable[..., Nginx],
) -> None:
    few = {"keepalive_requests 100000": "keepalive_requests 10", **LOG}
    async with proxied(few) as nginx, nginx.client() as client:
        reading = await recited(client, MANY)
        for _ in range(SOME):
            assert await whole(await agent("talker").stream(client, "Hi")) == "Hello world"
        assert set(await asyncio.gather(*reading)) == {RECITED}
        assert len(await started(client)) == MANY + SOME
        calls = nginx.calls()
        assert not any("/StreamWorkflow" in call for call in calls)
        assert len({call.split()[0] for call in calls}) > 2


@pytest.mark.parametrize("size", ["4k", "64k"])
async def test_nginx_buffers_no_event(proxied: Callable[..., Nginx], size: str) -> None:
    """The first text comes while the run is silent, however much a buffer could hold."""
    buffers = {"grpc_connect_timeout": f"grpc_buffer_size {size}; grpc_connect_timeout"}
    async with proxied(buffers) as nginx, nginx.client() as client:
        stream = await agent("sleeper").stream(client, "Hi")
        async for event in stream.events:
            if event.event_type == "text_delta":
                break
        assert (await stream.get())["status"] == "running"
        assert await stream.cancel()
