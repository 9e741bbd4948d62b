"""The beginning of an input on one line, for lists of runs."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any
from unicodedata import category

PREVIEW_LIMIT = 200
"""Characters of a preview at most."""

SCANNED = 4096
"""Characters of each text that are looked at."""

CUT = "…"
"""What stands for what is left out."""

DATA_URL = re.compile(r"(data:[\w.+-]{1,64}/[\w.+-]{1,64}[^,\s]{0,64};base64,)[\w+/=-]+", re.ASCII)
"""A file in a text: the type, and its content."""

SAYS_KIND = re.compile("^input_|_url$")
"""What the type of a part has beside the kind of the content: `input_audio`, `image_url`."""


def preview_of(given: Any) -> str:
    """Return the beginning of an input; empty if there is nothing to show.

    Args:
        given: the JSON text of a payload; a conversation in the form of the OpenAI chat API, of
            which the last message counts that says anything; or anything else.

    """
    if isinstance(given, str):
        return line_of(given)
    messages = reversed(given) if isinstance(given, list) else ()
    lines = (line_of(" ".join(said(one))) for one in messages if isinstance(one, dict))
    return next(filter(None, lines), "")


def said(message: dict[str, Any]) -> Iterator[str]:
    """Yield the texts of a message, and the kinds of its other parts."""
    content = message.get("content")
    for part in content if isinstance(content, list) else [content]:
        text = part.get("text", part.get("refusal")) if isinstance(part, dict) else part
        if isinstance(text, str):
            yield text[: SCANNED + 1]
        elif isinstance(part, dict):
            yield f"[{SAYS_KIND.sub('', str(part.get('type')))}]"


def line_of(text: str) -> str:
    """Return the beginning of a text on one line, without what steers a terminal or a reader."""
    scanned = DATA_URL.sub(rf"\1{CUT}", text[:SCANNED])
    line = " ".join("".join(map(shown, scanned)).split())
    if len(line) <= PREVIEW_LIMIT and len(text) <= SCANNED:
        return line
    return line[: PREVIEW_LIMIT - 1].removesuffix(CUT) + CUT if line else ""


def shown(character: str) -> str:
    """Return a character as it is shown: nothing for marks of formatting and direction."""
    if character.isprintable():
        return character
    return "" if category(character) == "Cf" else " "
