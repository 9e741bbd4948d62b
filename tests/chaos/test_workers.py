"""The plans of the chaos harness on workers; `tests/peers/test_chaos.py` plays some."""

from __future__ import annotations

from collections import Counter

from chaos.places import TO_WORKERS, WORKERS
from chaos.workers.plan import BLOWS_EACH, workers_plan
from chaos.workers.system import SUFFERED

SEED = 1


def test_a_round_on_workers_is_the_same_whenever_it_is_planned() -> None:
    assert workers_plan(SEED, 3) == workers_plan(SEED, 3)
    assert workers_plan(SEED, 3) != workers_plan(SEED + 1, 3)


def test_every_blow_has_its_turn() -> None:
    rounds = 2 * len(TO_WORKERS) // BLOWS_EACH
    dealt = [blow.place for number in range(rounds) for blow in workers_plan(SEED, number).blows]
    assert Counter(dealt) == {place: 2 * count for place, count in Counter(TO_WORKERS).items()}


def test_every_blow_can_be_dealt_and_is_reported() -> None:
    assert set(SUFFERED) == set(TO_WORKERS)
    assert set(TO_WORKERS) < set(WORKERS)
