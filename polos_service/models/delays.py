"""How long a provider asks to wait, in the forms in which providers say it."""

from __future__ import annotations

import email.utils
import re
import time
from collections.abc import Mapping
from datetime import datetime

MAX_DELAY = 31 * 24 * 3600.0
"""Seconds. A longer delay, for example a date in the year 9999, makes no sense and is ignored."""

MAX_SEARCHED = 2000
"""Characters of a message that are searched for a delay."""

_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}

_UNIT = r"(ms|milliseconds?|s|secs?|seconds?|m|mins?|minutes?|h|hrs?|hours?|d|days?)(?![a-z])"
_PART = rf"\d{{1,9}}(?:\.\d{{1,9}})?\s{{0,3}}{_UNIT}"
_ONE_PART = re.compile(rf"(\d{{1,9}}(?:\.\d{{1,9}})?)\s{{0,3}}{_UNIT}", re.IGNORECASE)
_DURATION = re.compile(rf"(?:{_PART}\s{{0,3}}){{1,5}}", re.IGNORECASE)
_ASKED = re.compile(
    r"(?:try(?:ing)?\s+again|retry(?:ing)?|wait|resets?|\bin|\bafter)\b[^\d;,!?]{0,40}?"
    rf"((?:{_PART}[\s,]{{0,3}}(?:and\s{{1,3}})?){{1,5}})",
    re.IGNORECASE,
)
_ASKED_SECONDS = re.compile(
    r"retry[\s_-]after\W{1,3}(\d{1,9}(?:\.\d{1,9})?)(?![\w.])", re.IGNORECASE
)

RESETS = (
    "x-ratelimit-reset-requests",
    "x-ratelimit-reset-tokens",
    "x-ratelimit-reset",
    "ratelimit-reset",
    "anthropic-ratelimit-requests-reset",
    "anthropic-ratelimit-tokens-reset",
)
"""Headers that tell when a limit is lifted; they do not tell whether it is the one that was hit."""

EPOCH = 1e9
"""A number from here on is a time since 1970, not a delay."""


def asked(headers: Mapping[str, str]) -> float | None:
    """Return the seconds that Retry-After asks for (RFC 9110, 10.2.3), or its variant in ms."""
    for name, unit in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        if (seconds := seconds_in(headers.get(name), unit)) is not None:
            return seconds
    return None


def reset(headers: Mapping[str, str]) -> float | None:
    """Return the seconds until the last of the exhausted limits is lifted; None if none is told."""
    told = []
    for name in RESETS:
        left = headers.get(name.replace("reset", "remaining"), "0").strip()
        if left == "0" and (seconds := seconds_in(headers.get(name), 1.0)) is not None:
            told.append(seconds)
    return max(told, default=None)


def seconds_in(value: object, unit: float) -> float | None:
    """Return the seconds that a value tells.

    Args:
        value: a number, or a text: a number, a duration like `1m30s`, an HTTP or ISO date.
        unit: seconds that a bare number counts.

    """
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    if isinstance(value, str):
        return _in_text(value.strip()[:MAX_SEARCHED], unit)
    try:
        return _sensible(float(value) * unit)
    except OverflowError:
        return None


def delay_in(message: str) -> float | None:
    """Return the seconds that a sentence asks to wait, as in "Please try again in 1m3s."."""
    message = message[:MAX_SEARCHED]
    if found := _ASKED.search(message):
        return _sensible(_duration(found[1]))
    found = _ASKED_SECONDS.search(message)
    return _sensible(float(found[1])) if found else None


def _in_text(text: str, unit: float) -> float | None:
    try:
        number = float(text)
    except ValueError:
        pass
    else:
        return _sensible(number * unit)
    if _DURATION.fullmatch(text):
        return _sensible(_duration(text))
    try:
        return _sensible(email.utils.parsedate_to_datetime(text).timestamp() - time.time())
    except (ValueError, OverflowError, TypeError):
        pass
    try:
        return _sensible(datetime.fromisoformat(text).timestamp() - time.time())
    except (ValueError, OverflowError, OSError):
        return None


def _duration(text: str) -> float:
    return sum(
        float(number) * _UNITS["ms" if unit.lower().startswith(("ms", "mil")) else unit[0].lower()]
        for number, unit in _ONE_PART.findall(text)
    )


def _sensible(seconds: float) -> float | None:
    if seconds >= EPOCH:
        seconds = (seconds / 1000 if seconds >= EPOCH * 1000 else seconds) - time.time()
    return seconds if 0 <= seconds <= MAX_DELAY else None
