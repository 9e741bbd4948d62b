"""The short form of the chaos harness: `make chaos` plays many more rounds."""

from __future__ import annotations

from chaos.campaign import ONE_SERVICE, seeded_bug
from chaos.places import INSIDE, LINKS, OUTSIDE, Place
from chaos.plan import plan, turn_of_places
from chaos.provider import Provider
from chaos.report import Total
from chaos.round import play

SEED = 1

ROUNDS = 4
"""Rounds at most: on a busy machine one may end before the service comes to a place."""

RUNS = 8
"""Runs of a round; `make test-peers` plays rounds with three times as many, at every place."""

SEEDED = "skipped-fence"
"""The bug of the short form; `make test-peers` takes all."""


async def test_runs_survive_kills_and_cuts_at_chosen_places() -> None:
    places = (Place.APPEND_ACK, Place.MID_TOOL)
    total = Total()
    async with Provider() as provider:
        for number in range(ROUNDS):
            total.add("", await play(plan(SEED, number, runs=RUNS, places=places), provider))
            if all(total.faults[place] for place in places):
                break
    assert total.findings == []
    assert total.trials > 5
    assert total.events > 300
    assert [place for place in places if not total.faults[place]] == []
    assert any(total.faults[place] for place in LINKS)
    assert total.faults[Place.CURSOR]


async def test_the_harness_fails_with_a_seeded_bug() -> None:
    assert await seeded_bug(ONE_SERVICE, SEEDED, SEED)


def test_a_round_is_the_same_whenever_it_is_planned_and_no_two_rounds_are() -> None:
    rounds = [plan(SEED, number) for number in range(5)]
    assert rounds == [plan(SEED, number) for number in range(5)]
    assert rounds[0].runs[0].turns != rounds[1].runs[0].turns
    assert plan(SEED + 1, 0).runs[0].turns != rounds[0].runs[0].turns


def test_every_place_has_its_turn() -> None:
    places = (*INSIDE, *OUTSIDE)
    rounds = [turn_of_places(SEED, number, 4) for number in range(len(places))]
    counted = {place: sum(one.count(place) for one in rounds) for place in places}
    assert set(counted.values()) == {4}
