"""Texts of others on a terminal: a model's words, or a caller's, must not steer it."""

from __future__ import annotations

import json

_CONTROL = dict.fromkeys({*range(0x20), *range(0x7F, 0xA0)} - {ord("\t"), ord("\n")})
"""Control characters except tab and newline, each mapped to nothing."""


def printable(text: str) -> str:
    """Return a text without control characters."""
    return text.translate(_CONTROL)


def visible(text: str) -> str:
    """Return a text in which all that a terminal does not show is escaped, but for newlines."""
    return "".join(
        one if one.isprintable() or one == "\n" else json.dumps(one)[1:-1] for one in text
    )
