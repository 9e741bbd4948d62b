"""How a message calls what stands in a field where something else is expected."""

from __future__ import annotations

_KINDS = {dict: "an object", list: "a list", str: "a text", bool: "a boolean"}


def held(value: object) -> str:
    """Return what kind of JSON value it is, for a sentence."""
    if value is None:
        return "null"
    return _KINDS.get(type(value), "a number")
