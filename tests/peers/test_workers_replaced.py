"""`polos serve --workers`: processes are replaced and stopped, and addresses held."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from polos import PolosClient
from polos_service.outlet import STOPPING
from tests.support.reader import Events, assert_whole
from tests.support.waiting_app import (
    MORE,
    MORE_AGENT,
    WAITER,
    add_to,
    open_gate,
    waits_in,
    write_app,
)
from tests.support.workers import Workers, end_of, serve

pytestmark = pytest.mark.usefixtures("patient")


@pytest.fixture
def app(tmp_path: Path) -> Path:
    return write_app(tmp_path)


async def test_killed_or_stopped_the_supervisor_leaves_nothing_but_the_runs(app: Path) -> None:
    async with Workers(app, 2) as polos, PolosClient(polos.address) as client:
        stream = await WAITER.stream(client, "Go")
        async with Events(stream.events) as read:
            await waits_in(polos)
            os.kill(polos.pid, signal.SIGKILL)
            await polos.all_end()
            await polos.ended()
            open_gate(app)
            await polos.start()
            log = await read.all()
        assert_whole(log)
        printed = len(polos.lines)
        polos.send(signal.SIGINT)
        assert await polos.ended() == 0
        told = [line for line in polos.lines[printed:] if " service_st" not in line]
        assert told == [STOPPING]
        stopped = [line for line in polos.lines[printed:] if " service_stopped" in line]
        assert len(stopped) == 2
        await polos.all_end()


async def test_workers_are_replaced_one_by_one_and_nobody_is_refused(app: Path) -> None:
    async with Workers(app, 2, POLOS_GRACE="0.1") as polos, PolosClient(polos.address) as client:
        stream = await WAITER.stream(client, "Go")
        async with Events(stream.events) as read:
            await waits_in(polos)
            before = polos.workers
            add_to(app, "nothing = there_is_no_such_name\n")
            polos.send(signal.SIGHUP)
            await polos.said("restart_abandoned .*there_is_no_such_name")
            assert polos.workers == before

            add_to(app, MORE)
            polos.send(signal.SIGHUP)
            while set(before) & set(polos.workers):
                await call_anew(polos)
                await asyncio.sleep(0.05)
            open_gate(app)
            log = await read.all()
        assert_whole(log)
        await end_of(*before)
        assert await (await MORE_AGENT.stream(client, "Who are you?")).text() == "I am new."


async def call_anew(polos: Workers) -> None:
    """Call on a connection of its own, which any worker may get; it must serve."""
    async with PolosClient(polos.address) as caller:
        await caller.list_agents()
        stub: Any = health_pb2_grpc.HealthStub(await caller.channel())
        # A connection may be lost on the way to a worker that stops; nobody says NOT_SERVING.
        with contextlib.suppress(grpc.aio.AioRpcError):
            answer = await stub.Check(health_pb2.HealthCheckRequest())
            assert answer.status == health_pb2.HealthCheckResponse.SERVING


async def test_a_second_signal_stops_at_once(app: Path) -> None:
    async with Workers(app, 1, POLOS_GRACE="3600") as polos, PolosClient(polos.address) as client:
        await WAITER.stream(client, "Go")
        await waits_in(polos)
        polos.send(signal.SIGTERM)
        await polos.said("^Stopping")
        polos.send(signal.SIGTERM)
        assert await polos.ended() == 128 + signal.SIGTERM
        await polos.all_end()


async def test_address_and_store_are_nobody_elses(app: Path) -> None:
    async with Workers(app, 1) as polos:
        again, elsewhere = await asyncio.gather(
            serve(app, "--listen", polos.address, "--workers", "1"),
            serve(app, "--listen", "127.0.0.1:0", "--workers", "1"),
        )
        address = f"Error: Cannot listen on {polos.address}: the port is in use. "
        store = f"Error: The store {app.parent}/polos/nats is in use by another process. "
        assert again[0] == elsewhere[0] == 1
        assert again[1].startswith(address)
        assert elsewhere[1].startswith(store)
        async with PolosClient(polos.address) as client:
            open_gate(app)
            assert await (await WAITER.stream(client, "Go")).text() == "Wait. It is open."
