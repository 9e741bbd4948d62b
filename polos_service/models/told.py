"""What a provider says when it fails, whatever shape its error has.

Servers agree on no shape: an object, an object in a list, a list of objects, JSON inside a string,
a page of HTML, plain text. Everything is read by the names of its fields, to a bounded depth, and
no value makes it raise. What is read is not fit to be shown: see `redact`.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import orjson

from polos_service.models.delays import delay_in, seconds_in

MAX_DEPTH = 8
"""Levels of an error's body that are looked at."""

MAX_FIELDS = 64
"""Fields of an object that are looked at."""

MAX_ITEMS = 4
"""Entries of a list that are looked at."""

MAX_CODES = 16
"""Codes of one error that are kept."""

MAX_CODE = 100
"""Characters of a code; a longer one is a text."""

MAX_PAGE = 8192
"""Characters of a page that are searched for its title."""

MESSAGES = (
    *("message", "msg", "error_message", "error_msg", "errmsg", "status_msg", "faultstring"),
    *(
        "error_description",
        "detail",
        "error",
        "errors",
        "fault",
        "base_resp",
        "title",
        "description",
    ),
)
"""Fields that hold what is said, the better ones first; in lower case."""

CODES = ("code", "error_code", "errorcode", "status_code", "type", "__type", "status", "reason")
"""Fields that hold a code or the kind of the error, the better ones first."""

INSIDE = (
    *("error", "errors", "detail", "details", "metadata", "innererror", "fault", "base_resp"),
    *("raw", "message"),
)
"""Fields that hold more of the same."""

DELAYS = {
    "retrydelay": 1.0,
    "retry_after": 1.0,
    "retryafter": 1.0,
    "retry_after_seconds": 1.0,
    "retry_after_ms": 0.001,
}
"""Fields that say how long to wait, and how many seconds their unit is."""

_TITLE = re.compile(r"<(title|message|h1)\b[^>]*>([^<]*)<", re.IGNORECASE)
_DATA = re.compile(r"^data:\s*(.+)$", re.MULTILINE)


@dataclass(slots=True)
class Told:
    """What an error says.

    Attributes:
        message: the words; empty if there are none.
        codes: its codes and kinds, numbers included, from the outside in.
        fields: names of fields of the request that it blames.
        delay: seconds it asks to wait; None if it says nothing.
        page: whether it is a page of HTML or XML, which no API sends.

    """

    message: str = ""
    codes: list[str] = field(default_factory=list)
    fields: list[str] = field(default_factory=list)
    delay: float | None = None
    page: bool = False


def told_in(value: object) -> Told:
    """Return what an error says.

    Args:
        value: any JSON value, JSON text, or text.

    """
    value = _opened(value)
    told = Told(_message(value, 0))
    _collect(value, told, 0)
    if isinstance(value, str) and value.startswith("<"):
        told.page = True
    if not told.message:
        told.message = next((code for code in told.codes if not code.isdecimal()), "")
    if told.delay is None:
        told.delay = delay_in(told.message)
    return told


def _message(value: object, depth: int) -> str:
    if depth > MAX_DEPTH:
        return ""
    value = _opened(value)
    if isinstance(value, str):
        return _title(value) if value.startswith("<") else value
    if isinstance(value, Mapping):
        return _message_of(_fields(value), depth + 1)
    if isinstance(value, Sequence) and not isinstance(value, bytes):
        said = (_message(one, depth + 1) for one in islice(value, MAX_ITEMS))
        return "; ".join(dict.fromkeys(filter(None, said)))
    return ""


def _message_of(fields: Mapping[str, Any], depth: int) -> str:
    said = next(filter(None, (_message(fields.get(name), depth) for name in MESSAGES)), "")
    # A gateway says that its upstream failed, and beside it what the upstream said.
    metadata = fields.get("metadata")
    raw = _message(_fields(metadata).get("raw"), depth) if isinstance(metadata, Mapping) else ""
    place = ".".join(str(part) for part in _place(fields) if part != "body")
    said = f"{place}: {said}" if place and said else said
    return f"{said}: {raw}" if said and raw and raw not in said else said or raw


def _collect(value: object, told: Told, depth: int) -> None:
    """Collect codes, blamed fields and delays."""
    value = _opened(value)
    if depth > MAX_DEPTH or isinstance(value, str):
        return
    if isinstance(value, Mapping):
        fields = _fields(value)
        told.codes += _codes(fields)
        del told.codes[MAX_CODES:]
        told.fields += [
            one for one in (fields.get("param"), *_place(fields)) if isinstance(one, str)
        ]
        del told.fields[MAX_FIELDS:]
        for name, unit in DELAYS.items():
            if told.delay is None and name in fields:
                told.delay = seconds_in(fields[name], unit)
        for name in INSIDE:
            if name in fields:
                _collect(fields[name], told, depth + 1)
    elif isinstance(value, Sequence) and not isinstance(value, bytes):
        for one in islice(value, MAX_ITEMS):
            _collect(one, told, depth + 1)


def _codes(fields: Mapping[str, Any]) -> Iterator[str]:
    for name in (*CODES, "error"):
        code = fields.get(name)
        if isinstance(code, int) and not isinstance(code, bool):
            yield str(code)[:MAX_CODE]
        elif isinstance(code, str) and 0 < len(code) <= MAX_CODE and " " not in code:
            yield code


def _place(fields: Mapping[str, Any]) -> list[Any]:
    """Return where in the request the fault is, as FastAPI tells it; empty if it does not."""
    place = fields.get("loc")
    return list(islice(place, MAX_DEPTH)) if isinstance(place, list | tuple) else []


def _fields(value: Mapping[Any, Any]) -> dict[str, Any]:
    """Return the first fields of an object, their names in lower case."""
    return {str(name).lower(): one for name, one in islice(value.items(), MAX_FIELDS)}


def _opened(value: object) -> object:
    """Return the JSON value that a text holds; what is not such a text stays as it is."""
    if isinstance(value, bytes):
        value = value.decode(errors="replace")
    if not isinstance(value, str):
        return value
    text = value.strip()
    if text.startswith(("data:", "event:")) and (found := _DATA.search(text)):
        text = found[1].strip()
    if text.startswith(("{", "[", '"')):
        try:
            return orjson.loads(text.encode(errors="replace"))
        except ValueError:
            pass
    return text


def _title(page: str) -> str:
    found = _TITLE.search(page[:MAX_PAGE])
    return html.unescape(found[2]).strip() if found else ""
