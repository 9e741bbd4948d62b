"""A round on a cluster: blows to services and NATS, and runs that stream meanwhile."""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from chaos.base import BaseRound, Result
from chaos.cluster.logs import jetstream, left_behind, logs_in
from chaos.cluster.plan import SIZE, Blow, ClusterPlan
from chaos.cluster.system import Cluster
from chaos.link import Link
from chaos.places import REPLICA, Place
from chaos.plan import PATIENCE
from chaos.provider import Provider
from chaos.readers import Readers
from chaos.story import Log, Story

STUCK = 12.0
"""Seconds in which nothing happens to any run, with everything up, after which they hang: time
for a claim to pass, and less than the 15 s after which a lost wake-up is healed."""


async def play_cluster(
    plan: ClusterPlan, provider: Provider, bug: str = "", stuck: float = STUCK
) -> Result:
    """Play a round and return what came out of it."""
    provider.expect(plan.runs)
    with tempfile.TemporaryDirectory(prefix="polos-chaos-") as name:
        ledger = Path(name) / "ledger"
        async with Cluster(Path(name), provider.url, bug, ledger) as cluster:
            return await ClusterRound(plan, provider, cluster, ledger, stuck).play()


class ClusterRound(BaseRound):
    """A round while it is played."""

    def __init__(
        self, plan: ClusterPlan, provider: Provider, cluster: Cluster, ledger: Path, stuck: float
    ) -> None:
        super().__init__(
            runs=plan.runs,
            cuts=plan.cuts,
            lives=len(plan.blows) + 1,
            provider=provider,
            ledger=ledger,
            stuck=stuck,
        )
        self._blows = plan.blows
        self._cluster = cluster
        self._left = 0
        self._enough = asyncio.Event()
        self._queue: list[str] = []

    def _ports(self, number: int) -> Sequence[int]:
        """Return those of all replicas, another one first for each client."""
        ports = [one.service.port for one in self._cluster.replicas]
        return [*ports[number % SIZE :], *ports[: number % SIZE]]

    def _output(self) -> str:
        return self._cluster.output()

    async def _live_and_die(self, readers: Readers) -> None:
        """Deal one blow after the other."""
        for blow, life in zip(self._blows, self._lives, strict=False):
            deal = self._let_die if blow.place in REPLICA else self._strike
            await deal(blow, life)
        self._lives[-1].set()
        readers.progress = asyncio.get_running_loop().time()

    async def _strike(self, blow: Blow, life: asyncio.Event) -> None:
        """Deal a blow from outside when readers have seen so many events."""
        self._left = blow.after
        self._enough.clear()
        life.set()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._enough.wait(), PATIENCE)
        self._struck(blow.place, self._in_flight())
        await self._cluster.suffer(blow)

    async def _let_die(self, blow: Blow, life: asyncio.Event) -> None:
        """Have a replica kill itself where it is planned; kill it if it does not get there."""
        victim = self._cluster.replicas[blow.victim]
        self._struck(Place.SERVICE_RESTART, self._in_flight())
        await victim.arm(blow.faults)
        life.set()
        died = await victim.service.ended(PATIENCE)
        place = blow.place if died else Place.SERVICE_KILL
        self._struck(place, self._in_flight())
        await self._cluster.suffer(replace(blow, place=Place.SERVICE_KILL))

    def _saw(self, story: Story, links: list[Link]) -> None:
        super()._saw(story, links)
        self._left -= 1
        if self._left <= 0:
            self._enough.set()

    async def _logs(self) -> Mapping[str, Log]:
        async with jetstream([node.port for node in self._cluster.nodes.all]) as stream:
            if all(story.done for story in self._stories):
                self._queue = await left_behind(stream)
            logs = await logs_in(stream)
        for story in self._stories:
            for _ in range(logs[story.run_id].takeovers if story.run_id in logs else 0):
                self._struck(Place.TAKEOVER, [story])
        return logs

    def _result(self, logs: Mapping[str, Log]) -> Result:
        result = super()._result(logs)
        result.findings += self._queue
        for replica in self._cluster.replicas:
            result.findings += replica.problems
        return result
