"""The short form of the chaos harness on NATS: `python -m chaos --cluster` plays many rounds."""

from __future__ import annotations

from chaos.cluster_plan import cluster_plan
from chaos.cluster_round import play_cluster
from chaos.places import BLOWS, REPLICA, Place
from chaos.provider import Provider

SEED = 1


async def test_runs_survive_the_death_of_a_replica_a_zombie_and_the_death_of_the_leader() -> None:
    places = (Place.AFTER_TOOL, Place.SERVICE_PAUSE, Place.LEADER_KILL)
    async with Provider() as provider:
        plan = cluster_plan(SEED, 0, 24, len(places), places)
        result = await play_cluster(plan, provider)
    assert result.findings == []
    assert result.trials > 0
    assert result.faults[Place.SERVICE_PAUSE] == result.faults[Place.LEADER_KILL] == 1
    assert result.events > 500


def test_a_round_on_a_cluster_is_the_same_whenever_it_is_planned() -> None:
    assert cluster_plan(SEED, 3) == cluster_plan(SEED, 3)
    assert cluster_plan(SEED, 3) != cluster_plan(SEED + 1, 3)


def test_every_blow_has_its_turn() -> None:
    dealt = [blow.place for number in range(99) for blow in cluster_plan(SEED, number, 1).blows]
    assert {dealt.count(place) for place in BLOWS} == {33}
    assert {dealt.count(place) for place in REPLICA} == {18}
