"""JSON that is not quite JSON."""

from __future__ import annotations

import math
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from polos_service.models.lenient import MAX_VALUES, is_whole, values, writable


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"{}", [{}]),
        (b'{"a":1}{"b":2}', [{"a": 1}, {"b": 2}]),
        (b' {"a":1} \n\n {"b":2} ', [{"a": 1}, {"b": 2}]),
        (b'{"a":1}[DONE]', [{"a": 1}, "[DONE]"]),
        (b"data: data:{}", [{}]),
        (b'{"a":[1,2,],}', [{"a": [1, 2]}]),
        (b'{"a":",}\\",]",}', [{"a": ',}",]'}]),
        (b'{"a":Infinity,"b":-Infinity}', [{"a": math.inf, "b": -math.inf}]),
        (rb'{"a":"\ud83d"}', [{"a": "\ud83d"}]),
        (b'{"a":"\xff\xe4"}', [{"a": "\ufffd\ufffd"}]),
        (b'{"a":"\xed\xa0\xbd"}', [{"a": "\ud83d"}]),
        (b'{"a":"x\ny\tz\x00"}', [{"a": "x\ny\tz\x00"}]),
        (b'{"a":123456789012345678901234567890}', [{"a": 123456789012345678901234567890}]),
        (b"", []),
    ],
)
def test_what_can_be_read_is_read(data: bytes, expected: list[Any]) -> None:
    assert values(data) == expected


def test_nan_is_read() -> None:
    ((value,),) = (one.values() for one in values(b'{"a":NaN}'))
    assert math.isnan(value)


@pytest.mark.parametrize(
    "data", [b"{", b'{"a"', b"nope", b"{]", b"[" * 100_000, b"{}" * (MAX_VALUES + 1), b'{"a":"x}']
)
def test_what_cannot_be_read_is_said(data: bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - json's own messages
        values(data)
    assert not is_whole(data)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ({"a": "\ud83d"}, {"a": "\ufffd"}),
        ([2**70], [float(2**70)]),
        ({"a": ["ü", None, 1.5]}, {"a": ["ü", None, 1.5]}),
    ],
)
def test_a_value_becomes_one_that_can_be_written(value: Any, expected: Any) -> None:
    assert writable(value) == expected
    orjson.dumps(writable(value))


def test_a_value_that_is_nested_too_deeply_cannot_be_written() -> None:
    value: Any = {}
    for _ in range(600):
        value = {"a": value}
    assert writable(value) is None


@given(st.binary(max_size=60))
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    try:
        found = values(data)
    except ValueError:
        return
    assert isinstance(found, list)
