"""What a model call cost."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest

from polos.v1.event_pb2 import Usage
from polos_service.models.cost import cost

OPENAI = "https://api.openai.com/v1"


def usage(read: int, written: int, **more: int) -> Usage:
    return Usage(input_tokens=read, output_tokens=written, total_tokens=read + written, **more)


def micros(used: Usage, model: str = "gpt-4o-mini", base_url: str = OPENAI) -> int:
    found = cost(used, model, base_url)
    assert found is not None
    return found.usd_micros


def test_a_listed_model_has_its_price() -> None:
    assert micros(usage(1_000_000, 1_000_000)) == 750_000  # 0.15 and 0.60 USD a million


def test_cached_tokens_are_cheaper() -> None:
    assert micros(usage(1000, 0, cache_read_input_tokens=1000)) == 75
    assert micros(usage(1000, 0)) == 150


def test_nothing_used_costs_nothing() -> None:
    assert micros(usage(0, 0)) == 0


@pytest.mark.parametrize(
    ("read", "expected"),
    [(10, 2), (30, 4), (31, 5)],  # 1.5 and 4.5 and 4.65 millionths
)
def test_half_a_millionth_is_rounded_to_even(read: int, expected: int) -> None:
    assert micros(usage(read, 0)) == expected


def test_the_address_decides_about_the_price() -> None:
    used = usage(1_000_000, 0)
    groq = micros(used, "llama-3.3-70b-versatile", "https://api.groq.com/openai/v1")
    assert groq > 0
    assert cost(used, "llama-3.3-70b-versatile", OPENAI) is None


@pytest.mark.parametrize(
    ("model", "base_url"),
    [
        ("gpt-4o-mini", "http://127.0.0.1:8080/v1"),
        ("no-such-model", OPENAI),
        ("", OPENAI),
        ("gpt-4o-mini", ""),
        ("gpt-4o", "https://api.githubcopilot.com"),  # listed, but without a price
    ],
)
def test_what_is_not_listed_is_unknown_and_not_free(model: str, base_url: str) -> None:
    assert cost(usage(10, 10), model, base_url) is None


def test_usage_that_contradicts_itself_is_unknown() -> None:
    assert cost(usage(10, 0, cache_read_input_tokens=20), "gpt-4o-mini", OPENAI) is None


def test_a_defect_of_the_list_is_not_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: Any, **kwargs: Any) -> Decimal:
        raise RuntimeError

    monkeypatch.setattr("polos_service.models.cost.calc_price", fail)
    assert cost(usage(10, 10), "gpt-4o-mini", OPENAI) is None
