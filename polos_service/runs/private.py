"""What is stored beside the events of a run and never served: JSON lines, which concatenate."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import orjson

from polos_service.limits import PIECE_LIMIT
from polos_service.runs.said import pieces

ROOM = 8 * 1024
"""Bytes of a line that are left for what tells where a piece belongs."""


def private_line(step_key: str, private: Any, child: str | None = None) -> bytes:
    """Return what is stored beside a step's finish and never served; lines concatenate.

    Args:
        step_key: the step.
        private: JSON values by name, or JSON text of such as an `orjson.Fragment`.
        child: id of the child run that the step belongs to; None if it is a step of the root
            run. The line of such a step has the form that version 0.1.0 writes and reads.

    Raises:
        TypeError: a value is not a JSON value.

    """
    if child is None:
        return orjson.dumps({"step": step_key, "private": private}) + b"\n"
    return orjson.dumps({"run": child, "key": step_key, "private": private}) + b"\n"


def private_lines(
    step_key: str, attempt: int, private: Mapping[str, Any], child: str | None = None
) -> Iterator[bytes]:
    """Yield what `private_line` returns, cut into lines of at most PIECE_LIMIT bytes.

    They are stored beside several events of the attempt, in order; version 0.1.0 passes over
    them. There is one line, that of `private_line`, if it is short enough.

    Raises:
        TypeError: a value is not a JSON value.

    """
    whole = orjson.dumps(private)
    if len(whole) <= PIECE_LIMIT - ROOM:
        yield private_line(step_key, orjson.Fragment(whole), child)
        return
    told = {"run": child, "step": step_key, "attempt": attempt}
    # A character of JSON text takes two at most where the text stands in JSON text itself.
    for piece in pieces(whole.decode(), PIECE_LIMIT // 2 - ROOM):
        yield orjson.dumps({"piece": {**told, "json": piece}}) + b"\n"


def child_line(child: str, definition: bytes, deadline: int | None) -> bytes:
    """Return what is stored beside the first event of a child run and never served."""
    told = {"child": child, "definition": definition.decode(), "deadline": deadline}
    return orjson.dumps(told) + b"\n"


def definition_in(lines: bytes, child: str) -> bytes:
    """Return the definition of a child from private lines; nothing if none of them has it."""
    begin = orjson.dumps({"child": child})[:-1] + b","
    for line in lines.split(b"\n"):
        if line.startswith(begin):
            return str(orjson.loads(line)["definition"]).encode()
    return b""
