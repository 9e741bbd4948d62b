"""The search of `bench.rows.sustained` for the most runs that a server carries."""

from __future__ import annotations

import pytest

from bench.rows.sustained import PRECISION, START, STEP, kept, largest, next_above, next_below


def searched(start: int, limit: int) -> tuple[int, list[int]]:
    """Search for a limit; return what was found and what was tried."""
    tried: list[int] = []

    def holds(number: int) -> bool:
        tried.append(number)
        return number <= limit

    return largest(start, holds), tried


@pytest.mark.parametrize("start", [1, 2, 8, 50, 200])
def test_the_largest_number_that_holds_is_found_to_the_precision(start: int) -> None:
    for limit in range(1, 1000):
        found, tried = searched(start, limit)
        beyond = min(number for number in [*tried, limit + 1] if number > limit)
        assert found <= limit
        assert beyond <= max(found * PRECISION, found + 1), (start, limit, found)


def test_a_search_that_begins_near_the_limit_takes_few_measurements() -> None:
    for start in START.values():
        for limit in range(next_below(start, STEP), next_above(start, STEP)):
            _, tried = searched(start, limit)
            assert len(tried) <= 4, (start, limit, tried)


def test_a_search_that_begins_far_from_the_limit_takes_larger_and_larger_steps() -> None:
    _, tried = searched(200, 1600)
    assert tried[:4] == [200, 250, 391, 955]
    assert len(searched(200, 3)[1]) <= 10


def test_nothing_is_measured_twice_and_nothing_below_one() -> None:
    for limit in range(300):
        found, tried = searched(100, limit)
        assert found >= 1
        assert min(tried) >= 1
        assert len(tried) == len(set(tried)), tried


@pytest.mark.parametrize(
    ("p99", "delivered", "expected"),
    [(50.0, 0.97, True), (50.1, 1.0, False), (4.0, 0.96, False), (-1.0, 0.0, False)],
)
def test_a_load_is_kept_if_nearly_all_arrives_in_time(
    p99: float,
    delivered: float,
    expected: bool,  # noqa: FBT001
) -> None:
    assert kept({"p99_ms": p99, "delivered": delivered}) is expected
