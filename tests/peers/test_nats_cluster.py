"""A cluster of NATS servers, of which most go away and come back while a run is started."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from chaos.cluster.nodes import Nodes
from polos.v1.run_pb2 import RunState
from polos_service.store.nats.subjects import REQUESTS
from tests.store.test_nats_cluster import opened
from tests.support.stores import new_run


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
