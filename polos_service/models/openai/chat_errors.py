"""Errors in the place of chunks, in every form that servers write them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from polos_service.models.codes import status_of
from polos_service.models.told import Told

_CODES = ("code", "error_code", "errcode", "status_code", "status", "__type")
_WORDS = ("message", "msg", "error_msg", "error_message", "errmsg", "status_msg", "title")

_FINE = frozenset({"", "0", "ok", "success", "succeeded", "true"})
"""What a code says if nothing is wrong; numbers from 200 to 299 as well."""

_FAULT = re.compile(r"error|fail|exception", re.IGNORECASE)
_EXCEPTION = re.compile(r"\w+(?:exception|error)", re.IGNORECASE)
"""The member that holds the exception of an event stream of AWS."""


def error_of(chunk: Mapping[str, Any]) -> object:
    """Return the error that a chunk reports, in whichever form; None if it reports none."""
    error = chunk.get("error") or chunk.get("errors")
    answers = bool(chunk.get("choices"))
    if error and isinstance(error, int):
        return chunk
    if error and not (answers and _is_blank(error)):
        return error
    return None if answers else _told_by(chunk)


def _told_by(chunk: Mapping[str, Any]) -> object:
    """Return the error that a chunk without choices is; None if it is none."""
    if chunk.get("object") == "error" or chunk.get("type") == "error" or chunk.get("detail"):
        return chunk
    if any(_is_failure(one) for one in (chunk, chunk.get("base_resp"))):
        return chunk
    for name, value in chunk.items():
        if value and _EXCEPTION.fullmatch(name):
            return {"type": name, "message": value}
    return None


def _is_blank(error: object) -> bool:
    """Return whether an error says nothing: some servers write an empty one in each chunk."""
    return isinstance(error, Mapping) and not any(error.values())


def _is_failure(told: object) -> bool:
    """Return whether an object has words and, beside them, that something failed."""
    if not isinstance(told, Mapping):
        return False
    fields = {str(name).lower(): value for name, value in told.items()}
    if not any(isinstance(fields.get(name), str) for name in _WORDS):
        return False
    return fields.get("success") is False or any(_is_bad(name, fields.get(name)) for name in _CODES)


def _is_bad(name: str, code: object) -> bool:
    if isinstance(code, bool) or not isinstance(code, int | str):
        return False
    text = str(code).strip().lower()
    if text in _FINE or re.fullmatch("2[0-9]{2}", text):
        return False
    # A status in words can be that of a request in a queue, and its message tells its place.
    return (
        name != "status"
        or _FAULT.search(text) is not None
        or status_of(Told(codes=[text])) is not None
    )
