"""A round on a cluster: blows to services and NATS, and runs that stream meanwhile."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from chaos.base import Result
from chaos.cluster.plan import SIZE, Blow, ClusterPlan
from chaos.cluster.system import Cluster
from chaos.places import REPLICA, Place
from chaos.plan import PATIENCE
from chaos.provider import Provider
from chaos.struck import StruckRound

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


class ClusterRound(StruckRound):
    """A round while it is played."""

    def __init__(
        self, plan: ClusterPlan, provider: Provider, cluster: Cluster, ledger: Path, stuck: float
    ) -> None:
        super().__init__(plan, provider, cluster, ledger, stuck)
        self._cluster = cluster

    def _ports(self, number: int) -> Sequence[int]:
        """Return those of all replicas, another one first for each client."""
        ports = [one.service.port for one in self._cluster.replicas]
        return [*ports[number % SIZE :], *ports[: number % SIZE]]

    async def _deal(self, blow: Blow, life: asyncio.Event) -> None:
        deal = self._let_die if blow.place in REPLICA else super()._deal
        await deal(blow, life)

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
