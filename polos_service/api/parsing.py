"""Reads the JSON that callers send. What cannot be kept as it is, is refused."""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any, NoReturn

DEPTH_LIMIT = 100
"""Levels of a caller's JSON; every parser on its way takes more."""

DIGITS_LIMIT = 4300
"""Digits of an integer: Python's own bound, beyond which conversion takes quadratic time."""

NUMBER_SHOWN = 40
"""Characters of a number that an error quotes."""

ESCAPED_HALF = re.compile(r"\\u[dD][89a-fA-F]")
"""How half of a surrogate pair is written; two in a row are one character, and fine."""

SURROGATE = re.compile("[\ud800-\udfff]")


class ParseError(ValueError):
    """The text cannot be taken; `path` says where in it, as in `[0].content`, if it is known."""

    def __init__(self, what: str, path: str = "") -> None:
        super().__init__(what)
        self.path = path


def parse(text: str) -> Any:
    """Return the value of a JSON text.

    Not orjson: that makes floats of integers beyond 64 bits.

    Raises:
        ParseError: the text is not JSON, or has what no JSON text can say again: NaN, a
            number beyond a double's range, half of a surrogate pair, a key twice, more than
            `DEPTH_LIMIT` levels.

    """
    try:
        value = json.loads(
            text,
            parse_constant=constant,
            parse_float=finite,
            parse_int=integer,
            object_pairs_hook=unique,
        )
    except ParseError:
        raise
    except RecursionError:
        raise ParseError(f"is nested deeper than {DEPTH_LIMIT} levels") from None
    except ValueError as error:
        raise ParseError(f"is not valid JSON: {error}") from None
    if deeper(value, DEPTH_LIMIT):
        raise ParseError(f"is nested deeper than {DEPTH_LIMIT} levels")
    if ESCAPED_HALF.search(text):
        whole_characters(value)
    return value


def constant(name: str) -> NoReturn:
    """Refuse NaN and the infinities, which Python would take."""
    raise ParseError(f"is not valid JSON: {name} is not a JSON value")


def finite(digits: str) -> float:
    """Return a number with a fraction or an exponent."""
    number = float(digits)
    if not math.isfinite(number):
        raise ParseError(f"has the number {digits[:NUMBER_SHOWN]}, which exceeds a double")
    return number


def integer(digits: str) -> int:
    """Return a whole number."""
    if len(digits) > DIGITS_LIMIT:
        raise ParseError(f"has an integer of {len(digits)} digits, the limit is {DIGITS_LIMIT}")
    return int(digits)


def unique(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    """Return an object."""
    found = dict(pairs)
    if len(found) != len(pairs):
        [(twice, _)] = Counter(key for key, _ in pairs).most_common(1)
        raise ParseError(f"has the key {twice[:NUMBER_SHOWN]!r} twice in one object")
    return found


def deeper(value: Any, limit: int) -> bool:
    """Return whether a JSON value has more levels than `limit`."""
    level = [value]
    for _ in range(limit + 1):
        level = [
            child
            for one in level
            if isinstance(one, list | dict)
            for child in (one.values() if isinstance(one, dict) else one)
        ]
        if not level:
            return False
    return True


def whole_characters(value: Any) -> None:
    """Refuse a value with half of a surrogate pair in a text or key."""
    for path, text in texts(value, ""):
        found = SURROGATE.search(text)
        if found is not None:
            half = f"\\u{ord(found[0]):04x}"
            raise ParseError(f"has {half} without its other half, which is not valid Unicode", path)


def texts(value: Any, path: str) -> Iterator[tuple[str, str]]:
    """Yield the texts of a value and where they stand; a key stands where its object does."""
    if isinstance(value, str):
        yield path, value
    elif isinstance(value, list):
        for index, one in enumerate(value):
            yield from texts(one, f"{path}[{index}]")
    elif isinstance(value, dict):
        for key, one in value.items():
            yield path, key
            yield from texts(one, f"{path}.{key}")
