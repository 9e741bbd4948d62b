"""Streams of children of random trees, read while they run, while the service is killed."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from polos.v1.event_pb2 import Event
from polos_client.define.context import WorkflowContext
from polos_client.define.workflow import workflow
from polos_service.reading.tail import Readers
from polos_service.runs.frame import decode
from polos_service.runs.journal import ENDS
from polos_service.store import ENDED
from polos_service.store.sqlite import SqliteStore, spool
from tests.support.flows import Flows, flowing
from tests.support.spool import crashed
from tests.support.stores import soon

KILLS = 4


@workflow(id="node")
async def node(ctx: WorkflowContext, payload: list[Any]) -> None:
    """Take a step for each number, and run a node for each list, all that are in a row at once."""
    for place, one in enumerate(payload):
        if isinstance(one, int):
            await ctx.step.run(f"say {place}", said, one)
        else:
            below = [
                ctx.step.invoke_and_wait(f"run {place}/{number}", "node", inner)
                for number, inner in enumerate(one)
            ]
            await asyncio.gather(*below)
    if payload and payload[0] == 1:
        begun = asyncio.ensure_future(ctx.step.invoke_and_wait("given up", "node", [1_000]))
        await ctx.step.run("pause", asyncio.sleep, 0)
        begun.cancel()
        await asyncio.wait({begun})


async def said(size: int) -> str:
    await asyncio.sleep(0)
    return "x" * size


def tree(chance: random.Random, depth: int) -> list[Any]:
    """Return what a node does: the sizes of its steps, and the nodes that it runs side by side."""
    return [
        [tree(chance, depth - 1) for _ in range(chance.randint(1, 3))]
        if depth and chance.random() < 0.6
        else chance.choice((1, 500, 20_000))
        for _ in range(chance.randint(1, 3))
    ]


def deep(depth: int) -> list[Any]:
    """Return a tree of one node in each level."""
    return [1_000, [deep(depth - 1)], 2] if depth else [2]


def stream_of(log: list[Event], run_id: str, after: int) -> list[Event]:
    """Return what the stream of a child has, out of the log of its root."""
    runs, found = {run_id}, []
    for event in log:
        if event.run_id in runs or event.parent_run_id in runs or event.terminal:
            runs.add(event.run_id)
            found.append(Event.FromString(event.SerializeToString()))
            ends = event.run_id == run_id and event.WhichOneof("payload") in ENDS
            if ends or event.terminal:
                found[-1].terminal = True
                break
    return [one for one in found if one.sequence > after]


class Reader:
    """Reads the stream of a child behind a cursor, in as many processes as it takes."""

    def __init__(self, run_id: str, after: int = 0) -> None:
        self.run_id = run_id
        self.after = after
        self.events: list[Event] = []

    async def read(self, store: SqliteStore) -> None:
        """Read on, up to the end of the stream."""
        if self.events and self.events[-1].terminal:
            return
        cursor = self.events[-1].sequence if self.events else self.after
        with Readers(store).tail("default", self.run_id, cursor) as tail:
            while (data := await tail.next()) is not None:
                self.events += decode(data)


@asynccontextmanager
async def reading(store: SqliteStore, readers: Iterable[Reader]) -> AsyncIterator[None]:
    """Have readers read until the block ends."""
    async with asyncio.TaskGroup() as tasks:
        begun = [tasks.create_task(one.read(store)) for one in readers]
        yield
        for one in begun:
            one.cancel()


@pytest.mark.parametrize("seed", range(6))
async def test_each_child_has_its_part_of_the_log_whatever_happens_meanwhile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    chance = random.Random(seed)
    for name, some in (("SPOOL_LIMIT", (0, 5_000, 1 << 18)), ("BRANCHED", (100, 4_096))):
        monkeypatch.setattr(spool, name, chance.choice(some))
    store = await SqliteStore.open(tmp_path / "runs.db")
    planned = deep(28) if seed == 0 else [1, [tree(chance, 4), tree(chance, 4)], 1]
    run_id = await Flows(store, node).start(node, planned)
    readers: dict[str, Reader] = {}
    for kill in range(KILLS + 1):
        async with flowing(store, node, threshold=chance.choice((0.01, 60.0))) as flows:
            async with reading(store, readers.values()):
                await soon(grown(flows, run_id, None if kill == KILLS else chance.randint(5, 40)))
                log = await flows.events(run_id)
            for child in sorted({one.run_id for one in log} - {run_id} - readers.keys()):
                readers[child] = Reader(child, chance.choice((0, chance.randint(0, len(log)))))
            if kill < KILLS:
                later = await SqliteStore.open(crashed(store, tmp_path / f"killed {kill}"))
        if kill < KILLS:
            await store.close()
            store = later
    log = await Flows(store, node).events(run_id)
    for reader in readers.values():
        await soon(reader.read(store))
        assert reader.events == stream_of(log, reader.run_id, reader.after)
    assert readers
    await store.close()


async def grown(flows: Flows, run_id: str, events: int | None) -> None:
    """Wait until a run has ended, or its log has so many events more."""
    begin = (await flows.store.get("default", run_id)).latest
    while (found := await flows.store.get("default", run_id)).state not in ENDED:
        if events is not None and found.latest >= begin + events:
            return
        await flows.store.wait("default", run_id, found.latest)
