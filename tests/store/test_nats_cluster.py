"""The NATS store on a cluster of three servers, of which most go away and come back."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from chaos.cluster.nodes import Node, Nodes
from polos.v1.run_pb2 import RunState
from polos_service.store import Command
from polos_service.store.nats import Endpoint, NatsStore
from polos_service.store.nats.subjects import REQUESTS
from tests.support.stores import new_run

PATIENCE = 60.0
"""Seconds that a call is tried for; the servers are back long before."""


@pytest.mark.timeout(180)
async def test_a_start_while_most_servers_are_away_is_made_when_they_are_back(
    tmp_path: Path,
) -> None:
    nodes = Nodes(3, tmp_path)
    await nodes.start()
    await (await opened(nodes.all[0])).close()
    # It goes on to answer for a while, and refuses the request id for the first attempt's sake.
    leader = await nodes.leader(REQUESTS)
    store = await opened(leader)
    try:
        away = [node for node in nodes.all if node is not leader]
        for node in away:
            await node.end()
        starting = asyncio.create_task(store.create(new_run(run_id="run", request_id="once")))
        await asyncio.wait({starting}, timeout=6)
        assert not starting.done(), "nobody could have stored it"
        for node in away:
            await node.start()
        assert await starting == "run"
        assert (await store.get("default", "run")).state == RunState.RUN_STATE_QUEUED
        assert await store.create(new_run(run_id="other", request_id="once")) == "run"
    finally:
        await store.close()
        for node in nodes.all:
            await node.end()


@pytest.mark.timeout(180)
async def test_commands_put_through_different_servers_have_one_order(tmp_path: Path) -> None:
    nodes = Nodes(3, tmp_path)
    await nodes.start()
    stores = [await opened(node) for node in nodes.all]
    try:
        run_id = await stores[0].create(new_run())
        commands = [Command(id=f"c{n}", kind="resume", run_id=run_id) for n in range(30)]
        puts = (
            stores[number % 3].command("default", run_id, command)
            for number, command in enumerate([*commands, *commands])
        )
        await asyncio.gather(*puts)
        claim = await stores[0].claim_run("default", run_id)
        assert claim is not None
        assert sorted(one.id for one in claim.commands) == sorted(one.id for one in commands)
        await stores[0].release(claim)
        again = await stores[1].claim_run("default", run_id)
        assert again is not None
        assert again.commands == claim.commands
    finally:
        for store in stores:
            await store.close()
        for node in nodes.all:
            await node.end()


async def opened(node: Node) -> NatsStore:
    """Open the store at one server."""
    address = Endpoint(servers=[f"nats://127.0.0.1:{node.port}"], patience=PATIENCE)
    return await NatsStore.open(address, replicas=3)
