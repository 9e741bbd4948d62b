"""JSON as servers write it: a value at a time, and what is not quite JSON is read all the same."""

from __future__ import annotations

import json
import re
from typing import Any

import orjson

from polos_service.models.halves import whole

MAX_VALUES = 1000
"""JSON values in the data of one event."""

MAX_MENDED = 256 * 1024
"""Characters of a text from which trailing commas are taken out: that holds the loop."""

DONE = "[DONE]"
"""What OpenAI and its likes send as the last event. It is not JSON."""

_SPACE = re.compile(r"(?:[\s,]+|data:)*")
_PREFIX = re.compile(r"(?:\s*data:)+")
_COMMA = re.compile(r",\s*[}\]]")
_TRAILING_COMMA = re.compile(r'("[^"\\]*(?:\\.[^"\\]*)*")|,(?=\s*[}\]])', re.DOTALL)
_DECODER = json.JSONDecoder(strict=False)


def values(data: bytes) -> list[Any]:
    """Return the JSON values that stand in `data`, one after the other; `[DONE]` as a string.

    Taken as well: NaN and infinities, integers of any size, control characters and halves of
    surrogate pairs in strings, bytes that are not UTF-8 (each becomes U+FFFD), trailing commas, and
    a further `data:` in front of any.

    Raises:
        ValueError: it is not JSON, or holds more than MAX_VALUES values.

    """
    try:
        text = data.decode(errors="surrogatepass")
    except UnicodeDecodeError:
        text = data.decode(errors="replace")
    try:
        return _values(text)
    except ValueError:
        if len(text) > MAX_MENDED or _COMMA.search(text) is None:
            raise
        return _values(_TRAILING_COMMA.sub(lambda found: found[1] or "", text))
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def is_whole(data: bytes) -> bool:
    """Return whether all of `data` can be read."""
    try:
        return bool(values(data))
    except ValueError:
        return False


def writable(value: Any) -> Any:
    """Return a JSON value as one that orjson writes; None if it is nested too deeply.

    Halves of surrogate pairs become U+FFFD, integers beyond 64 bits become floats.
    """
    if _can_be_written(value):
        return value
    try:
        text = whole(json.dumps(value, ensure_ascii=False))
        value = json.loads(text, parse_int=_integer, parse_constant=lambda _: None)
    except RecursionError:
        return None
    return value if _can_be_written(value) else None


def _can_be_written(value: Any) -> bool:
    try:
        orjson.dumps(value)
    except TypeError:
        return False
    return True


def _integer(digits: str) -> int | float:
    number = int(digits)
    return number if -(2**63) <= number < 2**64 else float(digits)


def _values(text: str) -> list[Any]:
    found: list[Any] = []
    at = _after(_PREFIX, text, 0)
    while (at := _after(_SPACE, text, at)) < len(text):
        if len(found) == MAX_VALUES:
            raise ValueError(f"more than {MAX_VALUES} values")
        if text[at : at + len(DONE)].upper() == DONE:
            value, at = DONE, at + len(DONE)
        else:
            value, at = _DECODER.raw_decode(text, at)
        found.append(value)
    return found


def _after(pattern: re.Pattern[str], text: str, at: int) -> int:
    found = pattern.match(text, at)
    return found.end() if found else at
