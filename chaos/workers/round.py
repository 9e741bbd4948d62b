"""A round on workers: blows to their processes, and runs that stream meanwhile."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

from chaos.base import Result
from chaos.cluster.plan import ClusterPlan
from chaos.provider import Provider
from chaos.struck import StruckRound
from chaos.workers.system import WorkersSystem

STUCK = 12.0
"""Seconds in which nothing happens to any run, with everything up, after which they hang: as on
a cluster."""


async def play_workers(
    workers: int, plan: ClusterPlan, provider: Provider, bug: str = "", stuck: float = STUCK
) -> Result:
    """Play a round with so many workers, and return what came out of it."""
    provider.expect(plan.runs)
    with tempfile.TemporaryDirectory(prefix="polos-chaos-") as name:
        ledger = Path(name) / "ledger"
        async with WorkersSystem(Path(name), workers, provider.url, bug, ledger) as system:
            return await WorkersRound(plan, provider, system, ledger, stuck).play()


class WorkersRound(StruckRound):
    """A round while it is played."""

    _system: WorkersSystem

    def _ports(self, _: int) -> Sequence[int]:
        return [self._system.port]
