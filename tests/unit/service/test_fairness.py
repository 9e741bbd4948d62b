"""The rule by which projects share the queue, by a clock of the tests."""

from __future__ import annotations

from collections import Counter

import pytest

from polos_service.store.fairness import urgency


def one_slot(weights: dict[str, float], runs: int) -> list[str]:
    """Return whose runs a single slot executes, if all projects have enough and each takes 1 s."""
    started: dict[str, int] = {}
    order: list[str] = []
    for now in range(1, runs + 1):
        turns = {
            project: urgency(project, weights, held=0, started=started.get(project), now=now)
            for project in weights
        }
        project = min(turns, key=lambda one: turns[one])
        started[project] = now
        order.append(project)
    return order


def test_fewer_held_runs_go_first() -> None:
    few = urgency("a", {}, held=1, started=9, now=10)
    assert few < urgency("b", {}, held=2, started=None, now=10)


def test_the_weight_divides_what_is_held() -> None:
    assert urgency("a", {"a": 3}, held=2, started=1, now=9) < urgency(
        "b", {"a": 3}, held=1, started=1, now=9
    )


def test_a_project_that_never_ran_goes_before_those_that_did() -> None:
    assert urgency("a", {}, held=0, started=None, now=9) < urgency(
        "b", {"b": 1e9}, held=0, started=1, now=9
    )


def test_a_clock_that_goes_back_does_not_matter() -> None:
    assert urgency("a", {}, held=0, started=10, now=9) == urgency("a", {}, held=0, started=9, now=9)


@pytest.mark.parametrize("weight", [1, 2, 3, 10])
def test_with_one_slot_turns_are_as_frequent_as_weights_say(weight: int) -> None:
    counts = Counter(one_slot({"a": weight, "b": 1}, 1000))
    assert counts["a"] / counts["b"] == pytest.approx(weight, rel=0.1)


def test_with_one_slot_a_tiny_weight_has_its_turns() -> None:
    order = one_slot({"a": 1, "b": 1, "tiny": 0.01}, 1000)
    assert 3 <= Counter(order)["tiny"] <= 20
