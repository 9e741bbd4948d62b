"""How values become tokens of NATS' subjects."""

from __future__ import annotations

import pytest

from polos_service.store.nats.subjects import day_of, token, value_of


@pytest.mark.parametrize("value", ["", "a.b", "*", ">", "läufe ツ", "=A", "~x", "a b", "\ud800"])
def test_any_value_becomes_one_token_and_comes_back(value: str) -> None:
    part = token(value)
    assert not set(part) & set(". *>\t\r\n")
    assert part
    assert value_of(part) == value


def test_a_very_long_value_becomes_a_short_token() -> None:
    assert len(token("x" * 10_000)) < 100
    assert token("x" * 10_000) != token("x" * 10_001)


def test_the_day_of_a_run_comes_from_its_id() -> None:
    assert day_of("0190b6ac-1b4c-7000-8000-000000000000") == "20240715"
    for other in ("nothing", "", "8c1c1d0e-0b63-4d6f-9d2e-8f6b0d9c8f11"):
        assert day_of(other) == "00000000"
