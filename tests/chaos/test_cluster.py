"""The plans of the chaos harness on NATS; `tests/peers/test_chaos.py` plays one."""

from __future__ import annotations

from chaos.cluster.plan import cluster_plan
from chaos.places import BLOWS, REPLICA

SEED = 1


def test_a_round_on_a_cluster_is_the_same_whenever_it_is_planned() -> None:
    assert cluster_plan(SEED, 3) == cluster_plan(SEED, 3)
    assert cluster_plan(SEED, 3) != cluster_plan(SEED + 1, 3)


def test_every_blow_has_its_turn() -> None:
    rounds = len(BLOWS) * len(REPLICA)
    dealt = [blow.place for number in range(rounds) for blow in cluster_plan(SEED, number, 1).blows]
    assert {dealt.count(place) for place in BLOWS} == {3 * len(REPLICA)}
    assert {dealt.count(place) for place in REPLICA} == {2 * len(BLOWS)}
