"""The arguments of one tool call: JSON text, which arrives in fragments, and goes back whole."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Callable
from io import StringIO
from itertools import pairwise
from typing import Any

import orjson

from polos_service.models.lenient import values, writable

REPEATED_BYTES = 8
"""Bytes that a fragment counts if it only repeats what is known: its length is remembered."""

MAX_TAIL = 64
"""Characters at the end of arguments that tell whether it is worth to look at all of them."""

MAX_NONE = 16
"""Characters of what stands for no arguments at most."""

_REST = re.compile(r'(?:[^"\\]+|\\.)*+', re.DOTALL)
_TEXT = re.compile(r'"(?:[^"\\]+|\\.)*+"', re.DOTALL)


class Arguments:
    """The arguments of one call, growing.

    Some servers repeat in each fragment all that came before. As long as every fragment begins
    with the one before it, it is open which of the two a server does; the end decides.
    """

    def __init__(self, content: StringIO, count: Callable[[str], str]) -> None:
        """Write to `content`, and count each fragment with `count` towards the answer's bound."""
        self._content = content
        self._count = count
        self._nesting = Nesting()
        self._seen = 0
        self._last: str | None = ""
        self._lengths: list[int] = []
        self._last_is_closed: bool | None = None

    @property
    def begun(self) -> bool:
        """Whether there was any."""
        return bool(self._lengths) or self._content.tell() > 0

    def add(self, piece: str) -> None:
        """Take a fragment."""
        if self._last is None:
            self._content.write(self._count(piece))
        elif not piece:
            return
        elif piece.startswith(self._last):
            self._count(piece[len(self._last) :])
            self._count(" " * REPEATED_BYTES if self._last else "")
            self._last, self._last_is_closed = piece, None
            self._lengths.append(len(piece))
        else:
            self._write_all()
            self._content.write(self._count(piece))

    def clear(self) -> None:
        """Forget what came before."""
        self._content.seek(0)
        self._content.truncate()
        self._nesting, self._seen = Nesting(), 0
        self._last, self._last_is_closed, self._lengths = "", None, []

    def is_whole(self) -> bool:
        """Return whether they are whole as far as can be told: valid JSON, or none at all."""
        text = self._all()
        return text.strip() in ("", "null") or bool(_values(text))

    def end(self) -> list[str]:
        """Write the arguments to the content, once nothing follows; return those of further calls.

        Whole JSON followed by whole JSON is that of several calls.
        """
        text, *more = _apart(unwrapped(self._all()))
        self._content.seek(0)
        self._content.truncate()
        self._content.write(text)
        return more

    def _all(self) -> str:
        if self._last is not None:
            if len(self._lengths) > 1 and parsed(self._last) is not None:
                return self._last
            self._write_all()
        return self._content.getvalue()

    def is_closed(self) -> bool:
        """Return whether it is an object or a list that has been closed.

        What was looked at once is not looked at again.
        """
        if self._tail().rstrip()[-1:] not in ("", "}", "]"):
            return False
        if self._last is not None:
            if self._last_is_closed is None:
                nesting = Nesting()
                nesting.read(self._last)
                self._last_is_closed = nesting.closed
            return self._last_is_closed
        self._content.seek(self._seen)
        self._nesting.read(self._content.read())
        self._seen = self._content.tell()
        return self._nesting.closed

    def _tail(self) -> str:
        if self._last is not None:
            return self._last[-MAX_TAIL:]
        self._content.seek(max(0, self._content.tell() - MAX_TAIL))
        return self._content.read()

    def are_none(self) -> bool:
        """Return whether they only say that there are none: real ones may still follow."""
        text = self.so_far() if self._length() <= MAX_NONE else ""
        return bool(text) and unwrapped(text) == "{}"

    def _length(self) -> int:
        return self._content.tell() if self._last is None else len(self._last)

    def so_far(self) -> str:
        """Return what there is."""
        return self._content.getvalue() if self._last is None else self._last

    def _write_all(self) -> None:
        """Take the fragments for what they are: each goes on where the one before ended."""
        last = self._last or ""
        self._last = None
        for length in self._lengths[:-1]:
            self._content.write(self._count(last[:length]))
        self._content.write(last)


class Nesting:
    """How deep a JSON text is in objects and lists, read in pieces."""

    def __init__(self) -> None:
        self._depth = 0
        self._in_text = False
        self._escaped = False
        self._begun = False

    @property
    def closed(self) -> bool:
        """Whether it is an object or list whose end was read."""
        return self._begun and self._depth == 0 and not self._in_text

    def read(self, text: str) -> None:
        """Read on. Only how deep it is at the end is known: brackets are counted, not walked."""
        start = 0
        if self._in_text:
            start = self._end_of_text(text, 1 if self._escaped and text else 0)
        outside, quote, inside = _TEXT.sub("", text[start:]).partition('"')
        opened = outside.count("{") + outside.count("[")
        self._begun = self._begun or opened > 0
        self._depth += opened - outside.count("}") - outside.count("]")
        if quote:
            self._in_text = True
            self._end_of_text(inside, 0)

    def _end_of_text(self, text: str, at: int) -> int:
        """Return where outside begins again."""
        found = _REST.match(text, at)
        at = found.end() if found else at
        self._in_text = not text.startswith('"', at)
        self._escaped = text.startswith("\\", at) or (self._escaped and not text)
        return at if self._in_text else at + 1


def parsed(text: str) -> Any:
    """Return the JSON value that the whole text is; None if it is not one, or is null."""
    found = _values(text)
    return found[0] if len(found) == 1 else None


def supersedes(after: object, before: object) -> bool:
    """Return whether arguments repeat those before, or are what an empty object stood for."""
    if isinstance(before, dict) and isinstance(after, dict):
        return before.items() <= after.items()
    return before == after


def _values(text: str) -> list[Any]:
    with contextlib.suppress(ValueError):
        return [orjson.loads(text)]
    try:
        return values(text.encode(errors="surrogatepass"))
    except ValueError:
        return []


def unwrapped(text: str) -> str:
    """Return the arguments as an object, which is what every tool takes.

    None at all, null, or a list without entries is an empty object: PHP writes one like the other.
    JSON text inside a JSON text is taken out once, and so is an object that is alone in a list.
    """
    told = text.strip()
    if told in ("", "null", '""', '"null"', '"{}"', "[]", "{}"):
        return "{}"
    if told.startswith("["):
        found = parsed(told)
        if isinstance(found, list) and len(found) == 1 and isinstance(found[0], dict):
            return orjson.dumps(writable(found[0])).decode()
    if told.startswith('"'):
        inner = parsed(told)
        if isinstance(inner, str) and isinstance(parsed(inner), dict):
            return inner
    return text


def object_json(arguments_json: str) -> str:
    """Return the arguments as JSON text of an object, which is all that providers take back.

    What is not an object stands in the member `input` of one.
    """
    meant = unwrapped(arguments_json)
    with contextlib.suppress(ValueError):
        if isinstance(orjson.loads(meant), dict):
            return meant
    return json.dumps({"input": arguments_json})


def _apart(text: str) -> list[str]:
    """Return the objects of which there are several one after the other; else the text.

    An object that is not quite JSON (a line end in a string, a comma too many) is written anew.
    """
    with contextlib.suppress(ValueError):
        orjson.loads(text)
        return [text]
    found = _values(text)
    if len(found) == 1 and isinstance(found[0], dict):
        with contextlib.suppress(ValueError):  # NaN has no other form
            return [json.dumps(found[0], ensure_ascii=False, allow_nan=False)]
    if len(found) < 2 or not all(isinstance(one, dict) for one in found):  # noqa: PLR2004
        return [text]
    kept = [one for one, after in pairwise([*found, None]) if not supersedes(after, one)]
    return [orjson.dumps(writable(one)).decode() for one in kept]
