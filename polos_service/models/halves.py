"""Halves of surrogate pairs: servers in JavaScript cut their texts between the two."""

from __future__ import annotations


def has_half(text: str) -> bool:
    """Return whether there is half of a surrogate pair in the text."""
    if text.isascii():
        return False
    try:
        text.encode()  # of a long text this is faster than any search
    except UnicodeEncodeError:
        return True
    return False


def whole(text: str) -> str:
    """Return the text with halves of surrogate pairs joined; one alone becomes U+FFFD."""
    if not has_half(text):
        return text
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
