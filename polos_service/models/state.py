"""Provider state: JSON values that only the provider understands, and gets back unchanged.

It can arrive in fragments: objects whose texts and lists are continued. A text that is continued is
a StringIO until the answer is made: to append to a string takes time that grows with its length.
"""

from __future__ import annotations

from collections.abc import Mapping
from io import StringIO
from typing import Any


def state_for(state: Mapping[str, Any], provider: str) -> Mapping[str, Any]:
    """Return the part of a state that goes back to this provider; empty if there is none."""
    found = state.get(provider)
    return found if isinstance(found, Mapping) else {}


def merge(state: dict[str, Any], told: Mapping[str, Any]) -> None:
    """Put the members of `told` into `state`.

    Texts are appended and lists extended, objects merged; a text that is told again as it is
    stays, and any other value replaces the one before. None changes nothing.
    """
    for name, value in told.items():
        if value is not None:
            state[name] = _merged(state[name], value) if name in state else value


def settled(value: Any) -> Any:
    """Return state as JSON values, once nothing follows."""
    if isinstance(value, StringIO):
        return value.getvalue()
    if isinstance(value, dict):
        return {name: settled(member) for name, member in value.items()}
    if isinstance(value, list):
        return [settled(member) for member in value]
    return value


def _merged(before: Any, value: Any) -> Any:
    if isinstance(value, str) and isinstance(before, str | StringIO):
        return before if before == value else _continued(before, value)
    if isinstance(value, list) and isinstance(before, list):
        before.extend(value)
        return before
    if isinstance(value, dict) and isinstance(before, dict):
        merge(before, value)
        return before
    return value


def _continued(text: str | StringIO, piece: str) -> StringIO:
    if isinstance(text, StringIO):
        text.write(piece)
        return text
    growing = StringIO()
    growing.write(text + piece)
    return growing
