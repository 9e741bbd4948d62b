"""Draft: the value of a JSON text that is still being written. Pure: it reads nothing."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

from pydantic_core import from_json

_SHARE = 128
"""A text is parsed again once it has grown by this fraction: at each piece, it would take
quadratic time."""

_NUMBER = "0123456789+-.eE"
"""Characters of a number."""

_BEFORE_NUMBER = " \n\r\t:,["
"""What may precede a number, other than the start of the text."""


class Draft:
    """What an answer is so far: JSON values, from a text that arrives in pieces."""

    def __init__(self) -> None:
        """Begin before the first piece."""
        self._pieces: Sequence[str] = ()
        self._read = 0
        """How many of the pieces are in the text."""
        self._text: list[str] = []
        self._size = 0
        self._due = 0
        """The size at which the text is parsed again."""
        self._shown: str | None = None
        """The value that was yielded last, as JSON text: a program may change the value itself."""

    def changed(self, pieces: Sequence[str]) -> Iterator[Any]:
        """Yield the value of the text so far, if it is an object, a list or a string and changed.

        A string that is cut counts as far as it goes. A number, `true`, `false` or `null` that is
        cut does not count. A text that is not JSON has no value.

        Args:
            pieces: the pieces of the text so far. Another list than before is another text.

        """
        if pieces is not self._pieces:
            self._pieces, self._read, self._text, self._size, self._due = pieces, 0, [], 0, 0
        self._text.append("".join(pieces[self._read :]))
        self._read = len(pieces)
        self._size += len(self._text[-1])
        if self._size < self._due:
            return
        self._due = self._size + self._size // _SHARE + 1
        text = "".join(self._text)
        self._text = [text]
        try:
            value = from_json(_without_number(text), allow_partial="trailing-strings")
            shown = json.dumps(value, allow_nan=False)  # of 1e400, `from_json` makes infinity
        except ValueError:
            return
        if isinstance(value, dict | list | str):
            yield from self._news(value, shown)

    def ended(self, text: str) -> Iterator[Any]:
        """Yield the value of the whole text, if it changed."""
        value = json.loads(text)
        yield from self._news(value, json.dumps(value))

    def _news(self, value: Any, shown: str) -> Iterator[Any]:
        if shown != self._shown:
            self._shown = shown
            yield value


def _without_number(text: str) -> str:
    """Return a text without the number at its end: more digits may follow."""
    head = text.rstrip(_NUMBER)
    return head if head[-1:] in _BEFORE_NUMBER else text
