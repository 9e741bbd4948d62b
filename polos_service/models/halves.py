"""Halves of surrogate pairs: servers in JavaScript cut their texts between the two."""

from __future__ import annotations

import re

HALF = re.compile("[\ud800-\udfff]")
"""Half of a surrogate pair."""


def whole(text: str) -> str:
    """Return the text with halves of surrogate pairs joined; one alone becomes U+FFFD."""
    if text.isascii() or HALF.search(text) is None:
        return text
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
