"""The bytes of a stream, taken apart without the code that is tested."""

from __future__ import annotations

from collections.abc import Iterator


def fields(data: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Yield number and value of each field of a message of varints and lengths."""
    at = 0
    while at < len(data):
        key, at = _varint(data, at)
        value, at = _varint(data, at)
        if key & 7 == 0:
            yield key >> 3, value
            continue
        assert key & 7 == 2, f"wire type {key & 7}"
        yield key >> 3, data[at : at + value]
        at += value


def event_bytes(data: bytes) -> list[bytes]:
    """Return each event's own bytes, of frames or responses."""
    return [value for number, value in fields(data) if number == 1 and isinstance(value, bytes)]


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            return value, at
