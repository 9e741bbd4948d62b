"""What a message calls a JSON value of the wrong kind."""

from __future__ import annotations

_KINDS = {dict: "an object", list: "an array", str: "a string", bool: "a boolean"}


def kind_of(value: object) -> str:
    """Return the kind of a JSON value, for a sentence."""
    return "null" if value is None else _KINDS.get(type(value), "a number")
