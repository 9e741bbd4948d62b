"""What a delta says: text and reasoning, in whichever form a server writes them."""

from __future__ import annotations

from typing import Any, NamedTuple

REASONING_FIELDS = ("reasoning_content", "reasoning", "reasoning_text", "thinking")
"""How servers call reasoning. One that uses two names says the same under both."""

MAX_DEPTH = 6
"""How deep words may stand in objects and lists."""

_TEXT_MEMBERS = ("text", "content", "value", "output_text", "refusal")
_REASONING_MEMBERS = ("thinking", "reasoning", "reasoning_content", "summary", "text", "content")


class Content(NamedTuple):
    """What the parts of a content say.

    Attributes:
        text: the text.
        reasoning: the reasoning among the parts; None if there is none.
        refused: whether the text is a refusal.
        odd: what was not understood, and is not in `text`; None if all was.

    """

    text: str = ""
    reasoning: str | None = None
    refused: bool = False
    odd: Any = None


def content_of(told: Any, depth: int = MAX_DEPTH) -> Content:
    """Return what a content says: a text, a number, a part, or a list of parts."""
    if isinstance(told, str):
        return Content(told)
    if isinstance(told, int | float) and not isinstance(told, bool):
        return Content(str(told))
    if isinstance(told, dict):
        return _part(told)
    if not (depth and isinstance(told, list)):
        return Content(odd=told)
    parts = [content_of(part, depth - 1) for part in told if part is not None]
    thoughts = [part.reasoning for part in parts if part.reasoning is not None]
    return Content(
        "".join(part.text for part in parts),
        "".join(thoughts) if thoughts else None,
        any(part.refused for part in parts),
        next((part.odd for part in parts if part.odd is not None), None),
    )


def _part(part: dict[str, Any]) -> Content:
    kind = part.get("type")
    if kind in (
        "thinking",
        "reasoning",
        "reasoning_text",
        "redacted_thinking",
        "reasoning_content",
    ):
        return Content(reasoning=words_of(part, _REASONING_MEMBERS))
    text = words_of(part, _TEXT_MEMBERS)
    odd = None if text or (_is_text(kind) and not _unread(part)) else part
    return Content(text, refused=kind == "refusal", odd=odd)


def _is_text(kind: object) -> bool:
    return kind in (None, "text", "output_text", "refusal")


def _unread(part: dict[str, Any]) -> bool:
    """Return whether a part without words may have them under a name that texts do not have."""
    others = [value for name, value in part.items() if name != "type"]
    return any(others) and not part.keys() & set(_TEXT_MEMBERS)


def reasoning_of(told: Any) -> str:
    """Return the words of a reasoning: a text, an object with one, or a list of these."""
    return told if isinstance(told, str) else words_of(told, _REASONING_MEMBERS)


def words_of(told: Any, members: tuple[str, ...], depth: int = MAX_DEPTH) -> str:
    """Return the words in a text, in the first of these members of an object, or in a list."""
    if isinstance(told, str):
        return told
    if depth and isinstance(told, list):
        return "".join(words_of(one, members, depth - 1) for one in told)
    if depth and isinstance(told, dict):
        found = next((told[name] for name in members if told.get(name)), "")
        return words_of(found, members, depth - 1)
    return ""
