"""The NATS store on a cluster of three servers."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from chaos.cluster.nodes import Node, Nodes
from polos_service.store import Command
from polos_service.store.nats import Endpoint, NatsStore
from tests.support.stores import new_run

PATIENCE = 60.0
"""Seconds that a call is tried for; the servers are back long before."""


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
