"""The Responses API: what of an output item is kept, so that it goes back as it came.

The text of an item, and the arguments of a call, stand in the parts of the answer. The state of
the part is the rest of the item, in which the number of characters stands for each text.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from io import StringIO
from typing import Any, TypeGuard

from polos_service.models.halves import whole

MESSAGE = "message"
"""The type of an item that says something."""

REASONING = "reasoning"
"""The type of an item that thinks."""

CALL = "function_call"
"""The type of an item that calls a tool of the request."""

PARAGRAPH = "\n\n"
"""What stands between two texts of the same reasoning item."""

COSTLY_BYTES = 128 * 1024
"""An event of this many bytes is not parsed before what it repeats was cut out: parsing takes
up to 4 ms per MiB, during which nothing else happens."""

EDGE = 64
"""Characters at both ends of a text that tell it from other texts; a text is longer."""

PAIRS = "surrogatepass"
"""How half of a surrogate pair is encoded: a server can send one."""


def is_item(told: object) -> TypeGuard[dict[str, Any]]:
    """Return whether a value is an item."""
    return isinstance(told, dict) and isinstance(told.get("type"), str)


def joint(item_type: str) -> str:
    """Return what stands between the texts of an item."""
    return PARAGRAPH if item_type == REASONING else ""


def texts(item: Mapping[str, Any]) -> list[str | int]:
    """Return the texts of an item in order; a number stands for one that is known already."""
    return [place[name] for place, name in _places(item)]


def refuses(item: Mapping[str, Any]) -> bool:
    """Return whether an item is a refusal."""
    return any(name == "refusal" for _, name in _places(item))


def kept(item: Mapping[str, Any], said: StringIO) -> dict[str, Any]:
    """Return what is to be kept of an item whose part says `said`."""
    if item.get("type") == CALL:
        return {k: v for k, v in item.items() if k not in ("arguments", "name", "call_id")}
    if item.get("type") not in (MESSAGE, REASONING):
        return dict(item)
    known = texts(item)
    if len(known) == 1 and isinstance(known[0], int):
        return _replaced(item, iter([said.tell()]))
    told = [whole(one) for one in known if isinstance(one, str)]
    if joint(item["type"]).join(told) != said.getvalue():
        # Signed reasoning must not change: what differs from that which was said stays as it is.
        return dict(item)
    return _replaced(item, iter([len(one) for one in told]))


def filled(item: Mapping[str, Any], said: str) -> dict[str, Any]:
    """Return the item of which `kept` is left, with the text of its part."""
    gap, at = len(joint(str(item.get("type")))), 0
    found: list[str | int] = []
    for text in texts(item):
        if isinstance(text, int):
            found.append(said[at : at + text])
            at += text + gap
        else:
            found.append(text)
    return _replaced(item, iter(found))


def _places(item: Mapping[str, Any]) -> Iterator[tuple[Mapping[str, Any], str]]:
    """Yield each object of an item that holds a text, and the name of the member with it."""
    for name in ("summary", "content"):
        parts = item.get(name)
        for part in parts if isinstance(parts, list) else ():
            if isinstance(part, dict) and (text := _text_name(part)):
                yield part, text


def _text_name(part: Mapping[str, Any]) -> str:
    for name in ("text", "refusal"):
        if isinstance(part.get(name), str | int):
            return name
    return ""


def _replaced(item: Mapping[str, Any], found: Iterator[str | int]) -> dict[str, Any]:
    """Return a copy of an item with these in the place of its texts."""
    made = dict(item)
    for name in ("summary", "content"):
        if isinstance(made.get(name), list):
            made[name] = [
                {**part, text: next(found)}
                if isinstance(part, dict) and (text := _text_name(part))
                else part
                for part in made[name]
            ]
    return made


def without(data: bytes, text: str) -> bytes:
    """Return JSON in which a number stands for each string that begins and ends like a text.

    Args:
        data: JSON.
        text: the text; the number is that of its characters.

    """
    for ascii_only in (False, True):
        begin = json.dumps(text[:EDGE], ensure_ascii=ascii_only).encode(errors=PAIRS)[:-1]
        end = json.dumps(text[-EDGE:], ensure_ascii=ascii_only).encode(errors=PAIRS)[1:]
        start = data.find(begin)
        while start >= 0:
            stop = data.find(end, start + 1 + len(text) - EDGE)
            # Every item has a type, and no string has this inside: quotes in it are escaped.
            if stop < 0 or data.rfind(b'"type"', start, stop) >= 0:
                break
            data = b"%b%d%b" % (data[:start], len(text), data[stop + len(end) :])
            start = data.find(begin, start)
    return data
