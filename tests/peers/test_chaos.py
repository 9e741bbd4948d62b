"""Chaos: the service and a cluster are killed and cut off, with every seeded bug to be found."""

from __future__ import annotations

import subprocess
import sys

import pytest

from chaos.cluster.plan import cluster_plan
from chaos.cluster.round import play_cluster
from chaos.places import Place
from chaos.provider import Provider
from tests.support.program import ROOT

SEED = 11


@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    "arguments",
    [
        ("--trials", "150"),
        ("--seeded-bugs",),
        ("--workers", "3", "--trials", "60"),
    ],
    ids=" ".join,
)
def test_the_harness_finds_what_it_must_and_nothing_else(arguments: tuple[str, ...]) -> None:
    command = [sys.executable, "-m", "chaos", "--seed", str(SEED), *arguments]
    done = subprocess.run(command, check=False, cwd=ROOT)
    assert done.returncode == 0


async def test_runs_survive_the_death_of_a_replica_a_zombie_and_the_death_of_the_leader() -> None:
    places = (Place.AFTER_TOOL, Place.SERVICE_PAUSE, Place.LEADER_KILL)
    async with Provider() as provider:
        plan = cluster_plan(1, 0, 24, len(places), places)
        result = await play_cluster(plan, provider)
    assert result.findings == []
    assert result.trials > 0
    assert result.faults[Place.SERVICE_PAUSE] == result.faults[Place.LEADER_KILL] == 1
    assert result.events > 500
